package fault

import (
	"regexp"
	"strings"
)

// maxDetailShown bounds a normalized detail, in characters. The worker's longest
// detail fits.
const maxDetailShown = 400

const (
	// quoted is a value in a detail, perhaps cut short.
	quoted = `"(?:[^"\\]|\\.)*"(?:\.\.\.)?`
	uuid   = `\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b`
	// someText and someKey stand for a value and a key that the detail does not show.
	someText = `\ba string of \d+ bytes?`
	someKey  = `a key of \d+ bytes?`
	digits   = `\b[0-9a-fA-F]{16,}\b`
)

var (
	// pathOf is the field at the start of a detail. inPath matches the parts of it that
	// differ from event to event; the 95 of metadata.p95 does not.
	pathOf = regexp.MustCompile(`^(?:attribute )?(?:[\w.-]|\[(?:` + quoted + `|` + someKey + `)\])+: `)
	inPath = regexp.MustCompile(`(` + quoted + `|` + someKey + `)|(` + uuid + `|` + digits + `)|(\d{4,})`)

	// inText has four groups: parts that stay, quoted values, ids, numbers.
	inText = regexp.MustCompile(strings.Join([]string{
		`(` + strings.Join([]string{
			// The expectation is the same for all events.
			`\bexpected .*?(?:, got |at byte offset |$)`,
			`\(the first is 0\)`,
			`within the years 0001 to 9999`,
			`the data begins as UTF-16`,
			// The group has the service, the environment and the feature anyway.
			quoted + ` is not listed in services\.yaml`,
			`service ` + quoted + ` (?:any|may not publish (?:for environment )?` + quoted + `)`,
			`services\.yaml allows .*$`,
			`the catalogue (?:allows .*$|does not list ` + quoted + ` of ` + quoted + `)`,
			`service_id=` + quoted + ` service_environment=` + quoted,
			`to the subscription [^;]*`,
		}, `|`) + `)`,
		`(` + quoted + `|` + someText + `)`,
		`(` + uuid + `|` + digits + `)`,
		`(\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)?|-?\b\d+(?:\.\d+)?\b|\d{4,})`,
	}, `|`))
)

// Normalize removes from a detail the values, ids, positions and sizes, which differ
// from event to event, so that one fault has one text. The worker's own words stay.
func Normalize(detail string) string {
	path := pathOf.FindString(detail)
	text := replaceGroups(inText, detail[len(path):], "$0", `"…"`, "ID", "N")
	return Clip(replaceGroups(inPath, path, `"…"`, "ID", "N")+text, maxDetailShown)
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

// Clip shortens a text to so many characters, and replaces bytes that are no UTF-8.
func Clip(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	runes := 0
	for i := range s {
		if runes++; runes > limit {
			return s[:i] + "…"
		}
	}
	return s
}
