package sample

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
)

// Reject is an event that the worker rejects, and how long ago it was published.
type Reject struct {
	ndjson.Message
	Ago time.Duration
}

// mistake is one that many events of a service have.
type mistake struct {
	service string
	count   int
	// newest and oldest are how long ago the events were published; the more of them are
	// new the larger growth is, from 1.
	newest, oldest time.Duration
	growth         int
	// releases are those that have the mistake, in turn.
	releases []string
	// make makes it in an event; i is the event's number.
	make func(event map[string]any, i int) any
}

var mistakes = []mistake{
	{"sams", 140, time.Minute, 9 * time.Hour, 2, []string{"1.85.0", "1.85.0", "1.85.1"}, func(e map[string]any, i int) any {
		id := strconv.Itoa(4000 + i)
		if i%47 == 46 {
			id = "guest"
		}
		e["user"] = map[string]any{"userId": id}
		return e
	}},
	{"cody-gateway", 36, 20 * time.Minute, 23 * time.Hour, 1, []string{"2026.46.1"}, func(e map[string]any, i int) any {
		e["privatMetadata"] = map[string]any{"repository": fmt.Sprintf("example.com/repository-%d", i)}
		return e
	}},
	{"cody-gateway", 22, 5 * time.Hour, 20 * time.Hour, 1, []string{"2026.45.0", "2026.46.1"}, func(e map[string]any, i int) any {
		e["metadata"] = map[string]any{"tier": strconv.Itoa(i % 3)}
		return e
	}},
	{"cody-analytics", 9, 30 * time.Hour, 50 * time.Hour, 1, []string{"7.2.0"}, func(e map[string]any, _ int) any {
		text, _ := json.Marshal(e) // a map of JSON values never fails
		return string(text)
	}},
	{"cody-web", 12, 2 * time.Hour, 9 * time.Hour, 1, []string{"0.9.3"}, func(e map[string]any, _ int) any { return e }},
}

// Rejects returns events with mistakes as on-call meets them: many events with the same
// one, from few releases, over the last two days.
func Rejects() ([]Reject, error) {
	events, err := parse(events)
	if err != nil {
		return nil, err
	}
	var all []Reject
	for n, m := range mistakes {
		for i := range m.count {
			reject, err := m.reject(events[(n*len(events)/len(mistakes)+i)%len(events)], i)
			if err != nil {
				return nil, err
			}
			all = append(all, reject)
		}
	}
	return all, nil
}

func (m mistake) reject(event ndjson.Message, i int) (Reject, error) {
	var fields map[string]any
	if err := json.Unmarshal(event.Data, &fields); err != nil {
		return Reject{}, fmt.Errorf("sample events: %w", err)
	}
	delete(fields, "id") // the samples have it already
	data, err := json.Marshal(m.make(fields, i))
	if err != nil {
		return Reject{}, fmt.Errorf("sample events: %w", err)
	}
	share := 1.0
	for range m.growth {
		share *= float64(i) / float64(m.count)
	}
	return Reject{
		Message: ndjson.Message{Data: data, Attributes: map[string]string{
			"service_id": m.service, "service_environment": "prod", "service_version": m.releases[i%len(m.releases)],
		}},
		Ago: m.newest + time.Duration(share*float64(m.oldest-m.newest)),
	}, nil
}
