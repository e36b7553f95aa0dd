package dlq

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

var faultsNow = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func faulty(i int, service, version, detail string, ago time.Duration, attributes ...string) *Stored {
	m := &pubsubpb.PubsubMessage{
		MessageId: fmt.Sprint("queue-", i), Data: []byte(`{"feature":"a.b","action":"c"}`),
		Attributes: map[string]string{
			"service_id": service, "service_version": version, AttrReason: "invalid_event", AttrDetail: detail,
			AttrMessageID: fmt.Sprint("message-", i), AttrRejectedAt: faultsNow.Add(-ago).Format(time.RFC3339),
		},
	}
	for i := 0; i < len(attributes); i += 2 {
		m.Attributes[attributes[i]] = attributes[i+1]
	}
	return Read(m, "prod")
}

func TestFaultsCountReleasesHoursAndSamples(t *testing.T) {
	f := Faults{Now: faultsNow}
	for i := range 5 {
		f.Add(faulty(i, "sams", "1.85.0", fmt.Sprintf("user.userId: expected an integer, got %q", fmt.Sprint(i)), time.Duration(i)*time.Hour))
	}
	f.Add(faulty(6, "sams", "1.85.1", `user.userId: expected an integer, got "x"`, 30*time.Hour, AttrReplays, "1"))
	f.Add(faulty(7, "sams", "1.84.0", "typo: unknown field", -time.Hour)) // from the future
	f.Add(faulty(8, "cody", "", "typo: unknown field", time.Minute))
	counts := f.Counts()
	if len(counts) != 3 {
		t.Fatalf("%d faults", len(counts))
	}
	c := counts[0]
	if want := fault.Of("invalid_event", "sams", `user.userId: expected an integer, got "1"`).ID(); c.ID != want {
		t.Errorf("the id is %s, want %s", c.ID, want)
	}
	if c.Count != 6 || c.CameBack != 1 || c.Sample != "message-0" || c.Feature != "a.b" || c.Features != 1 {
		t.Errorf("%+v", c)
	}
	if got := fmt.Sprint(c.Releases, c.Other, c.Environments); got != "[{1.85.0 5} {1.85.1 1}] [1.84.0] [prod]" {
		t.Error(got)
	}
	if got := fmt.Sprint(c.Hours[FaultHours-5:], " ", c.Trend); got != "[1 1 1 1 1] growing" {
		t.Error(got)
	}
	for _, c := range counts[1:] {
		if c.Hours[FaultHours-1] != 1 {
			t.Errorf("%s: %v", c.Service, c.Hours)
		}
	}
}

// TestFaultsBoundPublisherNames has a publisher that makes up names. They must neither grow
// the memory nor reach a terminal or a shell.
func TestFaultsBoundPublisherNames(t *testing.T) {
	f := Faults{Now: faultsNow}
	const n = 2*maxGroups + 1
	for i := range n {
		s := faulty(i, fmt.Sprint("service-", i), fmt.Sprint("v", i), "typo", time.Hour)
		s.OriginalID = "x; rm -rf ~"
		f.Add(s)
	}
	for i := range 2 * maxReleases {
		f.Add(faulty(i, "service-0", fmt.Sprint("v", i), "typo", time.Hour))
	}
	counts := f.Counts()
	total := 0
	for _, c := range counts {
		total += c.Count
		if strings.ContainsAny(c.Sample, "; ~") || len(c.Releases) > maxReleases {
			t.Errorf("%+v", c)
		}
	}
	if len(counts) != maxGroups+1 || counts[0].ID != "" || counts[0].Detail != otherFault || total != n+2*maxReleases {
		t.Errorf("%d faults of %d messages, the first %+v", len(counts), total, counts[0])
	}
}
