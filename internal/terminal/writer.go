package terminal

import (
	"bytes"
	"io"
	"os"
	"sync"
	"unicode/utf8"
)

// mode says what a Writer does with unsafe characters.
type mode int

const (
	// asText: they are replaced; line breaks, tabs and Paint's sequences pass.
	//nolint:unused // It is the zero value.
	asText mode = iota
	// asJSON: they are escaped; line breaks and tabs pass.
	asJSON
	// ownSequences: as text, but all sequences of the CSI form pass, and carriage
	// returns.
	ownSequences
)

// Writer writes text to a terminal, a file or a pipe, without control sequences. It is
// safe for concurrent use.
type Writer struct {
	out  io.Writer
	mode mode

	mu   sync.Mutex
	rest []byte // the beginning of a character or a sequence that the last write cut
}

// NewWriter returns a Writer to out. If out is a Writer already, it returns out.
func NewWriter(out io.Writer) *Writer {
	if w, ok := out.(*Writer); ok {
		return w
	}
	return &Writer{out: out}
}

// Write returns len(p) unless the writer below fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := p
	if len(w.rest) > 0 {
		all = append(w.rest, p...)
	}
	end := whole(all)
	clean := rewrite(all[:end], w.mode)
	w.rest = bytes.Clone(all[end:])
	if _, err := w.out.Write(clean); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Fd returns the descriptor of the file below, or an invalid one if it is no file.
func (w *Writer) Fd() uintptr {
	if f, ok := w.out.(file); ok {
		return f.Fd()
	}
	return ^uintptr(0)
}

// Sync flushes the file below to disk. It does nothing if it is no file.
func (w *Writer) Sync() error {
	if f, ok := w.out.(file); ok {
		return f.Sync()
	}
	return nil
}

// Private makes a regular file below readable by its owner only, and reports whether
// others could have read it until then.
func (w *Writer) Private() (changed bool, err error) {
	f, ok := w.out.(file)
	if !ok {
		return false, nil
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0 {
		return false, nil //nolint:nilerr // A file that cannot be inspected is no regular file of ours.
	}
	return true, f.Chmod(info.Mode().Perm() & os.FileMode(0o700))
}

// maxSequence is longer than any sequence that passes.
const maxSequence = 64

// whole returns how much of the text does not end within a character or a
// sequence.
func whole(p []byte) int {
	end := len(p)
	for i := max(0, len(p)-utf8.UTFMax+1); i < len(p); i++ {
		if utf8.RuneStart(p[i]) && isUTF8Start(p[i:]) {
			end = i
			break
		}
	}
	if at := bytes.LastIndexByte(p[max(0, end-maxSequence):end], 0x1b); at >= 0 {
		at += max(0, end-maxSequence)
		if n, open := sequence(p[at:end]); n == 0 && open {
			return at
		}
	}
	return end
}

// sequence returns the length of the CSI sequence at the start of p, 0 if there
// is none; open means that more bytes could make it one.
func sequence(p []byte) (n int, open bool) {
	if len(p) == 1 {
		return 0, true
	}
	if p[1] != '[' {
		return 0, false
	}
	for i := 2; i < len(p); i++ {
		switch c := p[i]; {
		case c >= '0' && c <= '9' || c == ';' || c == '?':
		case c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z':
			return i + 1, false
		default:
			return 0, false
		}
	}
	return 0, true
}

// valid reports whether a decoded character was valid UTF-8.
func valid(r rune, size int) bool { return r != utf8.RuneError || size > 1 }

// rewrite returns the text without unsafe characters. It returns p itself if there are none.
func rewrite(p []byte, m mode) []byte {
	var out []byte // nil: nothing was changed so far
	kept := 0      // up to here p is in out
	for i := 0; i < len(p); {
		c := p[i]
		if c >= ' ' && c < 0x7f || c == '\n' || c == '\t' {
			i++
			continue
		}
		n, pass := 1, false
		switch {
		case c == 0x1b && m != asJSON:
			if length, _ := sequence(p[i:]); length > 0 {
				switch {
				case m == ownSequences:
					n, pass = length, true
				case bytes.HasPrefix(p[i:i+length], []byte(mark)):
					out = append(append(out, p[kept:i]...), "\x1b["...)
					kept, n, pass = i+len(mark), length, true
				}
			}
		case c == '\r' && m == ownSequences:
			pass = true
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRune(p[i:])
			n, pass = size, valid(r, size) && !Unsafe(r)
		}
		if !pass {
			out = append(out, p[kept:i]...)
			r, size := utf8.DecodeRune(p[i : i+n])
			if m == asJSON && valid(r, size) {
				out = escaped(out, r)
			} else {
				out = utf8.AppendRune(out, replacement)
			}
			kept = i + n
		}
		i += n
	}
	if out == nil {
		return p
	}
	return append(out, p[kept:]...)
}
