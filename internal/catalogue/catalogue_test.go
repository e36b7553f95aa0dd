package catalogue

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
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
		strings.Replace(good, "cody-analytics", "Cody", 1):          `service: expected an id of lower-case letters, digits and hyphens, got "Cody"`,
		strings.Replace(good, "cody.hover\n", "cody_hover\n", 1):    `events[0] "cody_hover" "shown": feature: expected a lower-case letter`,
		strings.Replace(good, "action: hidden", "action: shown", 1): `events[1] "cody.hover" "shown": is listed twice`,
		good + "---\n{}": "expected one YAML document",
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

// TestServicesRejectWhatIsNotListed: the services list of a catalogue has the strictest
// rules.
func TestServicesRejectWhatIsNotListed(t *testing.T) {
	c, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	services, err := c.Services()
	if err != nil {
		t.Fatal(err)
	}
	want := []*policy.Service{{
		ID: "cody-analytics", PrivateMetadata: policy.RejectPrivate, RejectUnlisted: true,
		Catalogue: policy.Catalogue{
			{Feature: "cody.hover", Action: "shown"}:  {Metadata: map[string]bool{"tier": true}, Private: map[string]bool{"repository": true}},
			{Feature: "cody.hover", Action: "hidden"}: {Metadata: map[string]bool{}, Private: map[string]bool{}},
		},
	}}
	if diff := cmp.Diff(want, services.Services()); diff != "" || services.AllowsUnknown() {
		t.Error(diff)
	}
	if err := c.CheckService("cody-analytics"); err != nil {
		t.Error(err)
	}
	if err := c.CheckService("sams"); err == nil || !strings.Contains(err.Error(), `is that of service cody-analytics, the event that of "sams"`) {
		t.Error(err)
	}
}
