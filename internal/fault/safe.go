package fault

import (
	"regexp"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// Hidden stands for what must not be shown.
const Hidden = "[hidden]"

// WordPattern matches a word: a technical name, neither an address nor a sentence.
const WordPattern = `^[A-Za-z0-9_.+-]{1,64}$`

var word = regexp.MustCompile(WordPattern)

// Word returns s if it is empty or a word, else Hidden.
func Word(s string) string {
	if s == "" || word.MatchString(s) {
		return s
	}
	return Hidden
}

var quotedText = regexp.MustCompile(quoted)

// SafeDetail returns a detail with its quoted values hidden, unless they are words.
// Details of earlier versions quote values of events.
func SafeDetail(detail string) string {
	detail = quotedText.ReplaceAllStringFunc(detail, func(s string) string {
		value, _ := strings.CutSuffix(s, "...")
		if word.MatchString(value[1 : len(value)-1]) {
			return s
		}
		return `"` + Hidden + `"`
	})
	return terminal.Clean(detail)
}
