package catalogue

import (
	"strings"
	"testing"
)

const good = `
service: cody-analytics
owner: cody
events:
  - feature: cody.hover
    action: shown
    description: The user saw a hover.
    metadata:
      tier: 0 free, 1 pro
    privateMetadata:
      repository: the repository's name
  - {feature: cody.hover, action: hidden, description: It went away., owner: editors}
`

func TestParse(t *testing.T) {
	c, err := Parse([]byte(good))
	if err != nil || c.Service != "cody-analytics" || len(c.Events) != 2 || c.Events[1].Owner != "editors" {
		t.Errorf("%+v, %v", c, err)
	}
	for source, want := range map[string]string{
		"":      "found nothing",
		"a: 1":  "line 1: field a not found",
		"[]":    "line 1: cannot unmarshal",
		"owner": "cannot unmarshal",
		"{}":    "service: expected an id|owner: missing|events: expected at least one",
		strings.Replace(good, "cody-analytics", "Cody", 1):           `service: expected an id of lower-case letters, digits and hyphens, got "Cody"`,
		strings.Replace(good, "cody.hover\n", "cody_hover\n", 1):     `events[0] "cody_hover" "shown": feature: expected a lower-case letter`,
		strings.Replace(good, "action: hidden", "action: shown", 1):  `events[1] "cody.hover" "shown": is listed twice`,
		strings.Replace(good, "0 free, 1 pro", "", 1):                `metadata.tier: expected what it means`,
		strings.Replace(good, "description: It went away., ", "", 1): `description: missing`,
	} {
		_, err := Parse([]byte(source))
		for part := range strings.SplitSeq(want, "|") {
			if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "catalogue.") {
				t.Errorf("%s: %v, want %s", source, err, part)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	c, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ service, data, want string }{
		{"cody-analytics", `{"feature":"cody.hover","action":"shown","metadata":{"tier":1},"privateMetadata":{"repository":"x"}}`, ""},
		{"cody-analytics", `{"feature":"cody.hover","action":"hidden","metadata":{"telemetry.error":1}}`, ""},
		{"sams", `{"feature":"cody.hover","action":"shown"}`, `is that of service cody-analytics, the event that of "sams"`},
		{"cody-analytics", `{"feature":"cody.chat","action":"shown"}`, `"cody.chat" "shown" is not in the catalogue`},
		{"cody-analytics", `{"feature":"cody.hover","action":"shown","metadata":{"tier":1,"teir":1}}`, "cody.hover shown: metadata.teir is not in the catalogue"},
		{"cody-analytics", `{"feature":"cody.hover","action":"shown","privateMetadata":{"secret":1,"repository":"x"}}`, "privateMetadata: 1 of 2 fields are not in the catalogue"},
		{"cody-analytics", `{`, "not valid"},
	} {
		err := c.Check(test.service, []byte(test.data))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.data, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("names a private field: %v", err)
		}
	}
}
