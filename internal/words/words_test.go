// Package words_test keeps private words out of comments, log texts, help and docs. A
// reader who knows Go and Pub/Sub must understand a sentence without learning a
// vocabulary first.
package words_test

import (
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const root = "../.."

// word is a private word.
type word struct {
	// phrases are its forms, in lower case. They match whole words only; a hyphen or an
	// underscore belongs to a word.
	phrases []string
	// instead names the field's words for the same thing.
	instead string
	// fine are ordinary uses of the same word, which are left alone.
	fine []string
}

// words is the list. Add a line to keep another word out.
var words = []word{
	{[]string{"abandon", "abandons", "abandoned"}, "let expire", nil},
	{[]string{"any more"}, "no longer", nil},
	{[]string{"away"}, "unavailable, an outage of", []string{"right away", "take nothing away", "take that away", "takes that away"}},
	{[]string{"book", "books"}, "accounting", nil},
	{[]string{"bury", "buried", "burial", "interment", "interred", "grave", "graves", "graveyard", "digging"}, "dead-letter, dead-letter queue", nil},
	{[]string{"cohort", "cohorts"}, "events that arrived together", nil},
	{[]string{"company"}, "other events", nil},
	{[]string{"crowded"}, "near capacity", nil},
	{[]string{"dead letter", "dead letters", "letters"}, "dead-lettered message", []string{"lower-case letters", "upper-case letters", "capital letters", "letters of", "letters and digits", "then letters hyphens and full stops"}},
	{[]string{"gate", "gates"}, "breaker", nil},
	{[]string{"halve", "halved"}, "bisect", nil},
	{[]string{"hasten"}, "retry now", nil},
	{[]string{"heir", "heirs"}, "successor, faults", nil},
	{[]string{"held"}, "in flight; leased (a message); kept (data)", nil},
	{[]string{"house"}, "environment, devstack", nil},
	{[]string{"lane", "lanes"}, "id collision, stream", nil},
	{[]string{"mend", "mends", "mended", "mending"}, "fix, repair", nil},
	{[]string{"shut"}, "open (a breaker), close", []string{"shut down"}},
	{[]string{"somebody", "whoever"}, "the caller, a person, any server: name the subject", []string{"somebody with access to the topic"}},
	{[]string{"told"}, "logged, counted, signalled, informed", nil},
	{[]string{"twin", "twins"}, "redelivery, copy", nil},
	{[]string{"weather"}, "faults", nil},
}

// exempt lists the files and folders that may have private words.
var exempt = []string{
	"CHANGELOG.md",   // names what was renamed
	"internal/words", // has the list
}

// below reports whether a path is one of the files or in one of the folders.
func below(path string, of []string) bool {
	return slices.ContainsFunc(of, func(other string) bool { return path == other || strings.HasPrefix(path, other+"/") })
}

// privateNames matches private words that are a part of a name in camel case.
var privateNames = regexp.MustCompile(`^(hall|world|house|weather|heirs?|desk|mend(ed)?|graves?|tally|letters?)([A-Z_]|$)|(Hall|World|House|Weather|Heirs?|Desk|Mend(ed)?|Graves?|Tally)([A-Z_]|$)`)

// TestNamesInTestsHaveNoPrivateWords looks for private words in the names that tests
// declare and use.
func TestNamesInTestsHaveNoPrivateWords(t *testing.T) {
	for _, path := range files(t) {
		if !strings.HasSuffix(path, "_test.go") {
			continue
		}
		scan(t, path, func(line int, kind token.Token, literal string) {
			if kind == token.IDENT && privateNames.MatchString(literal) {
				t.Errorf("%s:%d: the name %s has a private word", path, line, literal)
			}
		})
	}
}

// TestFilesHaveNoPrivateWords looks for private words in all files.
func TestFilesHaveNoPrivateWords(t *testing.T) {
	for _, path := range files(t) {
		refuse(t, path)
	}
}

// refuse reports the private words in a file.
func refuse(t *testing.T, path string) {
	t.Helper()
	for _, p := range prose(t, path) {
		if phrase, instead := private(p.text); phrase != "" {
			t.Errorf("%s:%d: %q has the word %q; write: %s", path, p.line, p.text, phrase, instead)
		}
		if clauseFirst(p.text) {
			t.Errorf("%s:%d: %q begins with a clause as its subject; name the subject", path, p.line, p.text)
		}
	}
}

// TestWordsAreMatched shows what the list finds.
func TestWordsAreMatched(t *testing.T) {
	for text, want := range map[string]string{
		"an event that is held for long":           "held",
		"Held":                                     "held",
		"upheld":                                   "",
		"the gate is closed":                       "gate",
		"the gateway is closed":                    "",
		"while the gateway is away":                "away",
		"it returns right away":                    "",
		"a dead letter":                            "dead letter",
		"the dead-letter topic":                    "",
		"the worker dead-letters an event":         "",
		"lower-case letters and digits":            "",
		"lower-case letters, and letters in a box": "letters",
		"it is shut down":                          "",
		"the breaker is shut":                      "shut",
		"telemetry_relay_books_difference_events":  "",
		"TelemetryRelayGatewayAway":                "",
	} {
		if got, _ := private(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for name, want := range map[string]bool{
		"newHall": true, "world": true, "letters": true, "mendedEvents": true, "viewHall_2": true,
		"deadLetters": false, "publishAll": false, "OnStreamEnd": false, "shell": false,
	} {
		if got := privateNames.MatchString(name); got != want {
			t.Errorf("the name %s is private: %v, want %v", name, got, want)
		}
	}
	for text, want := range map[string]bool{
		"What is held is released.":      true,
		"It ends. Who waits is informed": true,
		"## What is left":                false,
		"What is left?":                  false,
		"It says what is left.":          false,
	} {
		if got := clauseFirst(text); got != want {
			t.Errorf("%q begins with a clause: %v, want %v", text, got, want)
		}
	}
}

// private returns the first private word in a text, and what to write instead. The word
// is empty if there is none.
func private(text string) (phrase, instead string) {
	plain := " " + strings.Join(strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_'
	}), " ") + " "
	for _, w := range words {
		for _, phrase := range w.phrases {
			if !strings.Contains(plain, " "+phrase+" ") {
				continue
			}
			kept := plain
			for _, fine := range w.fine {
				kept = strings.ReplaceAll(kept, " "+fine+" ", " ")
			}
			if strings.Contains(kept, " "+phrase+" ") {
				return phrase, w.instead
			}
		}
	}
	return "", ""
}

// clause matches the beginning of a sentence such as "What is left is lost".
var clause = regexp.MustCompile(`(?:^|[.;] )(?:What|Who|Whoever|Whatever) [a-z]+ `)

// clauseFirst reports whether a sentence has a clause for its subject. Questions are
// fine.
func clauseFirst(text string) bool {
	return strings.Contains(text, "Wh") && !strings.Contains(text, "?") && clause.MatchString(text)
}

// files returns the files with prose, relative to the root, in order.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		switch {
		case below(relative, exempt), relative == ".git", d.IsDir() && d.Name() == "node_modules":
			if d.IsDir() {
				return filepath.SkipDir
			}
		case d.IsDir():
		case slices.Contains([]string{".go", ".md", ".yaml", ".json", ".tf", ".proto"}, filepath.Ext(path)):
			all = append(all, relative)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// passage is a line of prose.
type passage struct {
	line int
	text string
}

// blocks matches the code blocks of a Markdown page. They show commands and their output,
// whose texts are checked in the code.
var blocks = regexp.MustCompile("(?ms)^```.*?^```$")

// prose returns the prose of a file: of Go, the comments and, if the file is no test, the
// strings with a space in them; of Markdown, the lines outside of code blocks; of other
// files, every line.
func prose(t *testing.T, path string) []passage {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	switch filepath.Ext(path) {
	case ".go":
	case ".md":
		return lines(1, blocks.ReplaceAllStringFunc(string(text), func(block string) string {
			return strings.Repeat("\n", strings.Count(block, "\n"))
		}))
	default:
		return lines(1, string(text))
	}
	var all []passage
	scan(t, path, func(line int, kind token.Token, literal string) {
		switch {
		case kind == token.COMMENT && !strings.HasPrefix(literal, "//go:"):
			all = append(all, lines(line, strings.TrimPrefix(literal, "//"))...)
		case kind == token.STRING && strings.Contains(literal, " ") && !strings.HasSuffix(path, "_test.go"):
			all = append(all, lines(line, literal)...)
		}
	})
	return all
}

// scan calls use for each token of a Go file, with its line.
func scan(t *testing.T, path string, use func(line int, kind token.Token, literal string)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	var s scanner.Scanner
	set := token.NewFileSet()
	s.Init(set.AddFile(path, -1, len(text)), text, func(at token.Position, message string) {
		t.Fatal(fmt.Errorf("%v: %s", at, message))
	}, scanner.ScanComments)
	for {
		pos, kind, literal := s.Scan()
		if kind == token.EOF {
			return
		}
		use(set.Position(pos).Line, kind, literal)
	}
}

func lines(first int, text string) []passage {
	var all []passage
	for line := range strings.Lines(text) {
		all = append(all, passage{first, strings.TrimSpace(line)})
		first++
	}
	return all
}
