// Package terminal keeps publishers' text from controlling the terminal that shows it.
// Everything that a command prints goes through its Writer.
package terminal

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// replacement replaces each unsafe character.
const replacement = '\uFFFD'

// Unsafe reports whether a character can control a terminal or mislead its
// reader: controls (C0, C1), separators of lines, bidirectional and other format
// characters, and those that show as nothing.
func Unsafe(r rune) bool {
	return r < ' ' || r == 0x7f || r > 0x7f &&
		unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point)
}

// Clean returns the text as one line without unsafe characters.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if Unsafe(r) {
			return replacement
		}
		return r
	}, strings.ToValidUTF8(s, string(replacement)))
}

// Escape returns valid JSON with the unsafe characters of its strings as escape
// sequences: the same value, in characters that a terminal shows as they are.
func Escape(json []byte) []byte {
	return rewrite(json, asJSON)
}

// escaped appends a character as JSON's escape sequence.
func escaped(b []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		return fmt.Appendf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}

// mark begins the escape sequences that Paint makes. Its number is random, so a publisher
// cannot write a sequence that the Writer takes for one of ours. It has the form of a
// sequence itself, so that libraries which measure text give it the width 0.
var mark = fmt.Sprintf("\x1b[%d;", 1<<40+rand.Uint64N(1<<50))

// Paint returns the text, cleaned, in the style of an SGR parameter such as
// "31;1". The sequences are for a Writer only.
func Paint(style, s string) string {
	if style == "" || s == "" {
		return Clean(s)
	}
	return mark + style + "m" + Clean(s) + mark + "0m"
}

// Is reports whether w is a terminal, or a Writer to one.
func Is(w any) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// Own returns a writer for text that has no publishers' text in it: a progress bar, or
// log lines that were cleaned part by part. It lets sequences and carriage returns pass,
// and treats everything else as w does.
func Own(w io.Writer) io.Writer { return face(w, ownSequences) }

// JSON returns a writer for JSON, whose unsafe characters become escape
// sequences.
func JSON(w io.Writer) io.Writer { return face(w, asJSON) }

func face(w io.Writer, m mode) io.Writer {
	if inner, ok := w.(*Writer); ok {
		w = inner.out
	}
	return &Writer{out: w, mode: m}
}

// file is the part of *os.File that the Writer forwards.
type file interface {
	Fd() uintptr
	Sync() error
	Stat() (os.FileInfo, error)
	Chmod(mode os.FileMode) error
}

// isUTF8Start reports whether b may be the beginning of a character that is cut.
func isUTF8Start(b []byte) bool { return len(b) > 0 && !utf8.FullRune(b) }

// Width returns how many columns the terminal below w has; 0 if w is no terminal, or
// if the terminal does not say it.
func Width(w any) int {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}
