package dlqui

import (
	"maps"
	"slices"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// eventBody is the data of the page of one event.
type eventBody struct {
	Row                            sample
	Fault                          *dlq.FaultCount
	Message                        *dlq.Stored
	Reason, Service, WorkerVersion string
	Broken, OrderingKey            string
	Attributes                     []attribute
	Lines                          []dataLine
	HiddenBytes                    int
	Revealed                       bool
	Advice                         string
}

type attribute struct {
	Name, Value string
	Here        bool // the detail names it
}

type dataLine struct {
	Text string
	Here bool // the detail names the field
}

// eventView makes the data of the page of an event. Without reveal, its private values are
// hidden.
func eventView(m *dlq.Stored, reveal bool) eventBody {
	view, limit := dlq.ViewOf(m, reveal), maxData
	if reveal {
		limit = maxRevealed
	}
	b := eventBody{
		Row: sampleOf(m), Message: m, Reason: dlq.Word(string(m.Reason)), Service: dlq.Word(m.Service), WorkerVersion: dlq.Word(m.WorkerVersion),
		HiddenBytes: view.HiddenBytes, Revealed: reveal, Advice: dlq.Advice(m), OrderingKey: m.Original.OrderingKey,
	}
	if m.Broken != nil {
		b.Broken = m.Broken.Error()
	}
	if b.OrderingKey != "" && !reveal {
		b.OrderingKey = dlq.Hidden
	}
	field := dlq.Field(m.Detail)
	for _, name := range slices.Sorted(maps.Keys(view.Attributes)) {
		b.Attributes = append(b.Attributes, attribute{name, view.Attributes[name], field == "attribute "+name})
	}
	for text := range strings.SplitSeq(dlq.Point(view.Clip(limit), field), "\n") {
		text, here := strings.CutSuffix(text, dlq.Here)
		b.Lines = append(b.Lines, dataLine{text, here})
	}
	return b
}
