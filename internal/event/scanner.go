package event

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// maxLevels bounds the nesting of a document; its outermost object is level 1.
const maxLevels = 100

// scanner reads JSON strictly (RFC 8259, UTF-8 only, no lone surrogates). It remembers the
// first syntax error, which ends every loop over members and elements, so callers need not
// check after each step.
type scanner struct {
	data []byte
	pos  int
	// key is set by member.
	key text
	// syntax is what was expected at byte syntaxAt; empty if there is no error.
	syntax   string
	syntaxAt int
}

// text is a string in the data, without its quotes.
type text struct {
	start, end int
	escaped    bool
}

func (s *scanner) fail(at int, what string) {
	if s.syntax == "" {
		s.syntax, s.syntaxAt = what, at
	}
}

// next skips white space and returns the byte after it, or 0 at the end.
func (s *scanner) next() byte {
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		if c > ' ' || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c
		}
		s.pos++
	}
	return 0
}

// peek returns the byte at the position, or 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

// enter skips the bracket that opens an object or array of this level.
func (s *scanner) enter(level int) bool {
	if level > maxLevels {
		s.fail(s.pos, "at most 100 levels of nesting")
		return false
	}
	s.pos++
	return true
}

// member moves to the value of the object's next member and sets key. It returns false
// after the closing brace or a syntax error.
func (s *scanner) member(first bool) bool {
	if s.syntax != "" {
		return false
	}
	c := s.next()
	if c == '}' {
		s.pos++
		return false
	}
	if !first {
		if c != ',' {
			s.fail(s.pos, "a comma or a closing brace")
			return false
		}
		s.pos++
		c = s.next()
	}
	if c != '"' {
		s.fail(s.pos, "a key in double quotes")
		return false
	}
	s.key = s.str()
	if s.syntax != "" {
		return false
	}
	if s.next() != ':' {
		s.fail(s.pos, "a colon")
		return false
	}
	s.pos++
	s.next()
	return true
}

// element moves to the array's next element. It returns false after the closing
// bracket or a syntax error.
func (s *scanner) element(first bool) bool {
	if s.syntax != "" {
		return false
	}
	c := s.next()
	if c == ']' {
		// After a comma, element returns true without looking for a bracket, so [1,] is a
		// syntax error.
		s.pos++
		return false
	}
	if first {
		return true
	}
	if c != ',' {
		s.fail(s.pos, "a comma or a closing bracket")
		return false
	}
	s.pos++
	s.next()
	return true
}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// str scans the string that begins at the position.
func (s *scanner) str() text {
	data := s.data
	start := s.pos + 1
	escaped := false
	i := start
	for {
		for i+8 <= len(data) {
			w := binary.LittleEndian.Uint64(data[i:])
			// The lowest high bit marks the first byte that is a quote, a backslash, a
			// control character or not ASCII. A borrow can set only later marks wrongly.
			quote, backslash := w^'"'*lowBits, w^'\\'*lowBits
			m := ((quote - lowBits) | (backslash - lowBits) | (w - ' '*lowBits) | w) & highBits
			if m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
			i += 8
		}
		if i >= len(data) {
			s.pos = len(data)
			s.fail(s.pos, "the end of a string")
			return text{}
		}
		switch c := data[i]; {
		case c == '"':
			s.pos = i + 1
			return text{start, i, escaped}
		case c == '\\':
			n := escapeLen(data[i:])
			if n == 0 {
				s.fail(i, "a valid escape sequence, with surrogates in pairs")
				return text{}
			}
			escaped = true
			i += n
		case c < ' ':
			s.fail(i, "an escape sequence in place of a control character")
			return text{}
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(data[i:])
			if r == utf8.RuneError && n == 1 {
				s.fail(i, "valid UTF-8")
				return text{}
			}
			i += n
		}
	}
}

// number is a number in the data.
type number struct {
	start, end int
	// integer is set if the number has neither fraction nor exponent.
	integer bool
}

// num scans the number that begins at the position.
func (s *scanner) num() number {
	n := number{start: s.pos, integer: true}
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else {
		s.digits()
	}
	if s.peek() == '.' {
		n.integer = false
		s.pos++
		s.digits()
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		n.integer = false
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		s.digits()
	}
	n.end = s.pos
	return n
}

func (s *scanner) digits() {
	i := s.pos
	for i < len(s.data) && isDigit(s.data[i]) {
		i++
	}
	if i == s.pos {
		s.fail(i, "a digit")
	}
	s.pos = i
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// literal skips null, true or false.
func (s *scanner) literal(word string) {
	if rest := s.data[s.pos:]; len(rest) < len(word) || string(rest[:len(word)]) != word {
		s.fail(s.pos, "a value")
		return
	}
	s.pos += len(word)
}

// skip skips any value. level is the level of the value if it is a container.
func (s *scanner) skip(level int) {
	switch s.peek() {
	case '{':
		if s.enter(level) {
			for first := true; s.member(first); first = false {
				s.skip(level + 1)
			}
		}
	case '[':
		if s.enter(level) {
			for first := true; s.element(first); first = false {
				s.skip(level + 1)
			}
		}
	default:
		s.skipScalar()
	}
}

func (s *scanner) skipScalar() {
	switch c := s.peek(); {
	case c == '"':
		s.str()
	case c == '-' || isDigit(c):
		s.num()
	case c == 't':
		s.literal("true")
	case c == 'f':
		s.literal("false")
	case c == 'n':
		s.literal("null")
	default:
		s.fail(s.pos, "a value")
	}
}

// kind returns the type of the value that begins with c.
func kind(c byte) string {
	switch c {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}
