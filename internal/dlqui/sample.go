package dlqui

import (
	"net/http"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

const (
	// maxSamples bounds the messages on the page of a fault.
	maxSamples = 20
	// maxData bounds the data of a message on a page, in bytes, and maxRevealed revealed
	// data.
	maxData     = 4 << 10
	maxRevealed = 64 << 10
)

// sample is a message in a row of a table.
type sample struct {
	ID, Name                              string
	Rejected                              time.Time
	Feature, Action, Release, Environment string
	Detail                                string
	Replays                               int
}

func sampleOf(m *dlq.Stored) sample {
	feature, action := dlq.SafeName(m)
	return sample{
		ID: m.ID, Name: dlq.SampleID(m), Rejected: m.RejectedAt, Feature: feature, Action: action,
		Release: dlq.Word(m.Original.Attributes[event.AttrServiceVersion]), Environment: dlq.Word(m.Environment), Detail: detailOf(m), Replays: m.Replays,
	}
}

// detailOf returns the detail of the rejection. For a message that cannot be restored, it
// returns the error instead.
func detailOf(m *dlq.Stored) string {
	if m.Broken != nil {
		return m.Broken.Error()
	}
	return dlq.SafeDetail(m.Detail)
}

// samples reads the newest messages of a fault, at most limit.
func samples(r *http.Request, current *spool.Spool, fault string, limit int) ([]*dlq.Stored, error) {
	numbers := current.Of(fault)
	var all []*dlq.Stored
	err := current.Each(r.Context(), numbers[:min(limit, len(numbers))], func(m *dlq.Stored) error {
		all = append(all, m)
		return nil
	})
	return all, err
}
