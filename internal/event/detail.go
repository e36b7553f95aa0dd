package event

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxEcho is how many bytes of a message's text a detail repeats.
const maxEcho = 80

// reject returns a rejection. Arguments from the message must have gone through describe or
// path, which keep private values out.
func reject(reason Reason, eventID, format string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Detail: limit(fmt.Sprintf(format, args...)), EventID: eventID}
}

// limit cuts a detail to the size of an attribute.
func limit(detail string) string {
	detail = strings.ToValidUTF8(detail, "\uFFFD")
	if len(detail) <= MaxDetail {
		return detail
	}
	return cut(detail, MaxDetail-len("...")) + "..."
}

// cut shortens valid UTF-8 to at most n bytes without splitting a character.
func cut[T string | []byte](s T, n int) T {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// quote returns the beginning of s as plain ASCII in quotes.
func quote[T string | []byte](s T) string {
	short := cut(s, maxEcho)
	quoted := strconv.QuoteToASCII(string(short))
	if len(short) < len(s) {
		quoted += "..."
	}
	return quoted
}

// describe returns s in quotes if it looks like a name. Any other text may be an address or
// a sentence about a person, so describe only returns its length.
func describe[T string | []byte](s T) string {
	if len(s) == 0 || isWord(string(s)) {
		return quote(s)
	}
	return "a string of " + bytesOf(len(s))
}

func bytesOf(n int) string {
	if n == 1 {
		return "1 byte"
	}
	return strconv.Itoa(n) + " bytes"
}

// isWord reports whether s is made of the characters that names have: a-z, A-Z, 0-9, and
// the signs that join them.
func isWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; c|0x20-'a' > 'z'-'a' && !isDigit(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= maxEcho
}

// path names a field: object.key, or a description of the key if it is not plain. The event
// itself is the object "".
func path(object string, key []byte) string {
	switch name := string(key); {
	case name == "":
		return object + `[""]`
	case !plain(key):
		return object + "[a key of " + bytesOf(len(name)) + "]"
	case object == "":
		return name
	default:
		return object + "." + name
	}
}

// plain reports whether a key needs no quotes.
func plain(key []byte) bool {
	for _, c := range key {
		if c|0x20-'a' > 'z'-'a' && !isDigit(c) && c != '_' && c != '-' {
			return false
		}
	}
	return len(key) > 0 && len(key) <= maxEcho
}

// similar returns the name that was probably meant: one that differs only in letter case or
// by one edit; "" if there is none.
func similar(key []byte, names []string) string {
	if len(key) > maxEcho {
		return ""
	}
	lower := strings.ToLower(string(key))
	for _, name := range names {
		if oneEdit(lower, strings.ToLower(name)) {
			return name
		}
	}
	return ""
}

// oneEdit reports whether a and b are equal or differ by one byte that is added, left out
// or replaced, or by two neighbours that are swapped.
func oneEdit(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	if len(a) < len(b) {
		return a[i:] == b[i+1:]
	}
	if i == len(a) || a[i+1:] == b[i+1:] {
		return true
	}
	return a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}
