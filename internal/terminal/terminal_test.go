package terminal

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// hostile is everything that must not reach a terminal as it is.
const hostile = "\x00\x07\x1b[2J\x1b[31mred\x1b]0;title\x07\x7f\u0085\u009b31m\u00ad\u200b\u200e\u202e\u2028\u2066\u2069\ufeff\U000e0041\u3164"

// unsafeIn returns the characters of a text that may not be in it.
func unsafeIn(s string) []rune {
	var all []rune
	for _, r := range s {
		if Unsafe(r) && r != '\n' && r != '\t' {
			all = append(all, r)
		}
	}
	return all
}

func TestControlCharactersAreReplaced(t *testing.T) {
	if got := Clean("a\n" + hostile + "\xff\x9bb"); len(unsafeIn(got)) > 0 || strings.ContainsAny(got, "\n\t") || !utf8.ValidString(got) {
		t.Errorf("%q", got)
	}
	const fine = "Müller 日本 ❤️ 🙂 ±½ العربية"
	if got := Clean(fine); got != fine {
		t.Errorf("%q", got)
	}
}

// TestWriterJoinsCutSequences writes in parts of every size: a character or a sequence may be cut.
func TestWriterJoinsCutSequences(t *testing.T) {
	painted := Paint("31;1", "bad\x1b[2J")
	text := "one\ttwo\n" + hostile + "\xff\x9b" + painted + "Müller\r\n"
	const want = "\x1b[31;1mbad\uFFFD[2J\x1b[0mMüller\uFFFD\n"
	for size := 1; size < len(text); size++ {
		var b bytes.Buffer
		w := NewWriter(&b)
		for part := range bytesChunks([]byte(text), size) {
			if n, err := w.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		got := b.String()
		if !strings.HasSuffix(got, want) || !strings.HasPrefix(got, "one\ttwo\n") {
			t.Fatalf("in parts of %d: %q", size, got)
		}
		if bad := unsafeIn(strings.TrimSuffix(got, want)); len(bad) > 0 {
			t.Fatalf("in parts of %d: %q reach the terminal: %q", size, bad, got)
		}
	}
}

func bytesChunks(b []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := min(size, len(b))
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// TestJSON: the value stays, in characters that a terminal does not obey.
func TestJSON(t *testing.T) {
	value := map[string]string{"a\u202e": hostile + "\U000e0041"}
	line, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := JSON(NewWriter(&b)).Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	if bad := unsafeIn(b.String()); len(bad) > 0 {
		t.Errorf("%q in %s", bad, b.String())
	}
	var got map[string]string
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got["a\u202e"] != value["a\u202e"] {
		t.Errorf("%v %q", err, got)
	}
}

func TestOwnSequencesPass(t *testing.T) {
	var b bytes.Buffer
	if _, err := Own(NewWriter(&b)).Write([]byte("\r\x1b[2K\x1b[32mok\x1b]0;x\x07\u009b")); err != nil || b.String() != "\r\x1b[2K\x1b[32mok\uFFFD]0;x\uFFFD\uFFFD" {
		t.Errorf("%v %q", err, b.String())
	}
}

func TestPrivateSetsFileMode(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "x"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := NewWriter(f)
	if changed, err := w.Private(); !changed || err != nil {
		t.Errorf("%v %v", changed, err)
	}
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if changed, err := w.Private(); changed || err != nil {
		t.Errorf("again: %v %v", changed, err)
	}
	if changed, err := NewWriter(&bytes.Buffer{}).Private(); changed || err != nil {
		t.Errorf("no file: %v %v", changed, err)
	}
}

func TestBuffersAreNoTerminals(t *testing.T) {
	if Is(&bytes.Buffer{}) || Is(nil) || Is(NewWriter(&bytes.Buffer{})) {
		t.Error("not every writer is a terminal")
	}
}
