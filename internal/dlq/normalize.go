package dlq

import (
	"regexp"
	"strings"
)

// maxDetailShown bounds a normalized detail, in characters: the longest text of
// the worker's own has room.
const maxDetailShown = 400

const (
	// quoted is a value as details repeat it, perhaps cut short.
	quoted = `"(?:[^"\\]|\\.)*"(?:\.\.\.)?`
	uuid   = `\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b`
	// someText and someKey stand for a value and a key that are not repeated.
	someText = `\ba string of \d+ bytes?`
	someKey  = `a key of \d+ bytes?`
	hex      = `\b[0-9a-fA-F]{16,}\b`
)

var (
	// pathOf is the field at the start of a detail, and inPath what differs there
	// from event to event: not the 95 of metadata.p95.
	pathOf = regexp.MustCompile(`^(?:attribute )?(?:[\w.-]|\[(?:` + quoted + `|` + someKey + `)\])+: `)
	inPath = regexp.MustCompile(`(` + quoted + `|` + someKey + `)|(` + uuid + `|` + hex + `)|(\d{4,})`)

	// inText has four groups: what stays as it is, quoted values, ids, numbers.
	inText = regexp.MustCompile(strings.Join([]string{
		`(` + strings.Join([]string{
			// What was expected is the same for all events.
			`\bexpected .*?(?:, got |at byte offset |$)`,
			`\(the first is 0\)`,
			`within the years 0001 to 9999`,
			`the data begins as UTF-16`,
			// What the letter's service, environment or feature say anyway.
			quoted + ` is not listed in services\.yaml`,
			`service ` + quoted + ` (?:any|may not publish (?:for environment )?` + quoted + `)`,
			`services\.yaml allows .*$`,
			`service_id=` + quoted + ` service_environment=` + quoted,
			`to the subscription [^;]*`,
		}, `|`) + `)`,
		`(` + quoted + `|` + someText + `)`,
		`(` + uuid + `|` + hex + `)`,
		`(\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)?|-?\b\d+(?:\.\d+)?\b|\d{4,})`,
	}, `|`))
)

// Normalize takes out of a detail what differs from event to event, so that one
// fault is one text: values, ids, positions and sizes. What the worker's texts
// always say stays.
func Normalize(detail string) string {
	path := pathOf.FindString(detail)
	text := replaceGroups(inText, detail[len(path):], "$0", `"…"`, "ID", "N")
	return clipTo(replaceGroups(inPath, path, `"…"`, "ID", "N")+text, maxDetailShown)
}

// replaceGroups replaces each match by the text for the group that has matched;
// $0 is the match itself.
func replaceGroups(re *regexp.Regexp, s string, texts ...string) string {
	var b strings.Builder
	at := 0
	for _, match := range re.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(s[at:match[0]])
		at = match[1]
		for i, text := range texts {
			switch {
			case match[2*i+2] < 0:
			case text == "$0":
				b.WriteString(s[match[0]:match[1]])
			default:
				b.WriteString(text)
			}
		}
	}
	b.WriteString(s[at:])
	return b.String()
}
