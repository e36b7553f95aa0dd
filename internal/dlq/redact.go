package dlq

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Hidden stands for what must not be shown.
const Hidden = "[hidden]"

// maxShown bounds what is shown of data that is not JSON.
const maxShown = 4 << 10

// Show returns an event's data in readable form: JSON with indentation, or text.
// Unless reveal is set, private metadata is hidden, also where it is misspelt;
// so is what cannot be searched for it.
func Show(data []byte, reveal bool) string {
	var out bytes.Buffer
	if err := rewrite(&out, data, reveal); err == nil {
		return strings.TrimSuffix(out.String(), "\n")
	}
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		if !reveal {
			return fmt.Sprintf("%s: %d bytes that are not text; --reveal shows them", Hidden, len(data))
		}
		return fmt.Sprintf("%+q", data[:min(len(data), maxShown)])
	}
	text, tail := string(data), ""
	if at := suspicious(text); !reveal && at >= 0 {
		text, tail = text[:at], Hidden
	}
	if len(text) > maxShown {
		text, tail = strings.ToValidUTF8(text[:maxShown], ""), "…"
	}
	// Control characters could do anything to a terminal.
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, text) + tail
}

// suspicious returns where broken JSON may begin to be private, or -1.
func suspicious(text string) int {
	at := strings.Index(strings.ToLower(text), "priv")
	// A key may be written in escapes.
	if escape := strings.Index(text, `\u`); escape >= 0 && (at < 0 || escape < at) {
		at = escape
	}
	if at >= len(text) { // lower case may be longer
		at = 0
	}
	return at
}

// rewrite writes one JSON value in readable form.
func rewrite(w io.Writer, data []byte, reveal bool) error {
	in := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true))
	out := jsontext.NewEncoder(w, jsontext.AllowDuplicateNames(true), jsontext.WithIndent("  "))
	for {
		token, err := in.ReadToken()
		if errors.Is(err, io.EOF) && in.InputOffset() > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		name := token.Kind() == '"' && isName(in)
		private := name && !reveal && Private(token.String())
		if err := out.WriteToken(token); err != nil {
			return err
		}
		if !private {
			continue
		}
		if err := in.SkipValue(); err != nil {
			return err
		}
		if err := out.WriteToken(jsontext.String(Hidden)); err != nil {
			return err
		}
	}
}

// isName reports whether the token that was just read is the name of a member.
func isName(in *jsontext.Decoder) bool {
	kind, n := in.StackIndex(in.StackDepth())
	return kind == '{' && n%2 == 1
}

// Private reports whether a key is that of private metadata, or probably meant
// as such.
func Private(key string) bool {
	key = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, key)
	return strings.Contains(key, "priv")
}
