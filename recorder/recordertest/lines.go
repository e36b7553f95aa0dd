package recordertest

import (
	"encoding/json"
	"strings"
	"unicode"
)

// Lines returns the recorded events as lines for `worker publish --check`, which checks
// them against the relay's services.yaml.
func (r *Recorder) Lines() []byte {
	r.tb.Helper()
	var lines []byte
	for _, e := range r.Events() {
		line, err := json.Marshal(lineOf(e))
		if err != nil {
			r.tb.Fatalf("recordertest: %v", err)
		}
		lines = append(append(lines, line...), '\n')
	}
	return lines
}

// jsonLine is a message in the form that `worker publish` reads.
type jsonLine struct {
	Attributes map[string]string `json:"attributes"`
	Data       json.RawMessage   `json:"data,omitempty"`
	DataBase64 []byte            `json:"dataBase64,omitempty"`
}

// lineOf keeps the data readable, unless it has characters that could control a terminal or
// that json.Marshal would encode differently.
func lineOf(e Event) jsonLine {
	unreadable := func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune("<>&", r) }
	if strings.ContainsFunc(string(e.Data), unreadable) {
		return jsonLine{Attributes: e.Attributes, DataBase64: e.Data}
	}
	return jsonLine{Attributes: e.Attributes, Data: e.Data}
}
