package dlq

import (
	"testing"
	"time"
)

func TestParseTimeTakesDatesAndAges(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2026-11-20T02:00:00Z":      "2026-11-20T02:00:00Z",
		"2026-11-20T02:00:00+02:00": "2026-11-20T00:00:00Z",
		"2026-11-20":                "2026-11-20T00:00:00Z",
		"2h":                        "2026-11-22T10:00:00Z",
		"1d":                        "2026-11-21T12:00:00Z",
		"1d12h":                     "2026-11-21T00:00:00Z",
		"1.5d":                      "2026-11-21T00:00:00Z",
		"0s":                        "2026-11-22T12:00:00Z",
		"31d":                       "2026-10-22T12:00:00Z",
		// Mistakes.
		"":           "",
		"d":          "",
		"-1d":        "",
		"-2h":        "",
		"1d-36h":     "",
		"1w":         "",
		"1h1d":       "",
		"NaNd":       "",
		"99999999d":  "",
		"2026-13-01": "",
		"20261120":   "",
		"yesterday":  "",
	} {
		got, err := ParseTime(text, now)
		if (err != nil) != (want == "") || err == nil && got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v; want %s", text, got.UTC(), err, want)
		}
	}
}

func TestPrivateFilterFindsPossiblyPrivateData(t *testing.T) {
	f := Filter{Private: true}
	for data, want := range map[string]bool{
		`{"feature":"a.b","action":"c","privateMetadata":{"x":1}}`: true,
		`{"feature":"a.b","action":"c","prviateMetadata":{"x":1}}`: true,
		`{"feature":"a.b","metadata":{"x":"alice"}}`:               true,
		`{"feature":"alice@example.com"}`:                          true,
		`{"feature":`:                                              true,
		`"{}"`:                                                     true,
		`{"feature":"a.b","action":"c"}`:                           false,
		`{"feature":"A B","action":"c","typo":1,"privateMetadata":{},"user":{"x":null}}`: false,
		`{"feature":"a.b","marketingTracking":{"url":"https://example.com"}}`:            false,
		``: false,
	} {
		s := &Stored{}
		s.Original.Data = []byte(data)
		if got := f.Match(s); got != want {
			t.Errorf("%s: %v", data, got)
		}
	}
	if got := f.String(); got != "private" || !f.Narrow() {
		t.Error(got)
	}
}
