package dlqui

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

const (
	// maxSamples is how many messages a fault shows.
	maxSamples = 20
	// maxData is how much of a message's data a page shows, in bytes; maxRevealed that of
	// revealed data.
	maxData     = 4 << 10
	maxRevealed = 64 << 10
)

// findFault returns a fault of the spool, or nil.
func findFault(current *spool.Spool, id string) *dlq.FaultCount {
	i := slices.IndexFunc(current.Faults(), func(f *dlq.FaultCount) bool { return f.ID != "" && f.ID == id })
	if i < 0 {
		return nil
	}
	return current.Faults()[i]
}

// withFault calls serve with the fault that the address names, or says that it is not
// there.
func (s *Server) withFault(w http.ResponseWriter, r *http.Request, serve func(*spool.Spool, *dlq.FaultCount)) {
	s.withSpool(w, r, func(current *spool.Spool) {
		f := findFault(current, r.PathValue("fault"))
		if f == nil {
			refuse(w, http.StatusNotFound, "No message that was read has this fault. It may be solved, or its messages are leased by another reader: read the queue again.")
			return
		}
		serve(current, f)
	})
}

// faultBody is the data of the page of a fault.
type faultBody struct {
	*dlq.FaultCount
	Info     event.ReasonInfo
	Samples  []sample
	Remedies remedies
}

// remedies is the form with which a fault enters the plan.
type remedies struct {
	Fault  string
	Chosen plan.Step
	InPlan bool
}

// sample is a row of a message.
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

// detailOf returns why the message cannot be restored, or else the detail.
func detailOf(m *dlq.Stored) string {
	if m.Broken != nil {
		return m.Broken.Error()
	}
	return dlq.SafeDetail(m.Detail)
}

// samples reads the newest messages of a fault.
func samples(r *http.Request, current *spool.Spool, fault string, limit int) ([]*dlq.Stored, error) {
	numbers := current.Of(fault)
	var all []*dlq.Stored
	err := current.Each(r.Context(), numbers[:min(limit, len(numbers))], func(m *dlq.Stored) error {
		all = append(all, m)
		return nil
	})
	return all, err
}

func (s *Server) faultPage(w http.ResponseWriter, r *http.Request) {
	s.withFault(w, r, func(current *spool.Spool, f *dlq.FaultCount) {
		messages, err := samples(r, current, f.ID, maxSamples)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		body := faultBody{FaultCount: f, Remedies: s.remedies(f.ID)}
		body.Info, _ = dlq.FindReason(event.Reason(f.Reason))
		for _, m := range messages {
			body.Samples = append(body.Samples, sampleOf(m))
		}
		p := s.page("Fault "+f.ID, "faults")
		p.Command, p.Body = shell("list", "--fault", f.ID, "--limit", "20"), body
		render(w, http.StatusOK, "fault.html", p)
	})
}

func (s *Server) remedies(fault string) remedies {
	step, ok := s.draft.all()[fault]
	return remedies{Fault: fault, Chosen: step, InPlan: ok}
}

// eventBody is the data of the page of one event.
type eventBody struct {
	sample
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

// eventView makes what a page shows of an event.
func eventView(m *dlq.Stored, reveal bool) eventBody {
	view, limit := dlq.ViewOf(m, reveal), maxData
	if reveal {
		limit = maxRevealed
	}
	b := eventBody{
		sample: sampleOf(m), Message: m, Reason: dlq.Word(string(m.Reason)), Service: dlq.Word(m.Service), WorkerVersion: dlq.Word(m.WorkerVersion),
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

// withEvent calls serve with the event that the address names.
func (s *Server) withEvent(w http.ResponseWriter, r *http.Request, serve func(*spool.Spool, *dlq.Stored)) {
	s.withSpool(w, r, func(current *spool.Spool) {
		n, ok := current.Find(r.PathValue("id"))
		if !ok {
			refuse(w, http.StatusNotFound, "No message that was read has this id. It may be replayed or removed, or leased by another reader: read the queue again.")
			return
		}
		m, err := current.Read(n)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		serve(current, m)
	})
}

func (s *Server) eventPage(w http.ResponseWriter, r *http.Request) {
	s.withEvent(w, r, func(current *spool.Spool, m *dlq.Stored) { s.showEvent(w, current, m, false) })
}

// revealEvent shows the private data of one event once it is in the audit file. It has no
// address of its own, so that no reload or link reveals it again.
func (s *Server) revealEvent(w http.ResponseWriter, r *http.Request) {
	s.withEvent(w, r, func(current *spool.Spool, m *dlq.Stored) {
		if err := s.queue.Reveal(r.Context(), m); err != nil {
			refuse(w, http.StatusInternalServerError, "The private data is not shown, because that cannot be recorded: "+err.Error())
			return
		}
		s.showEvent(w, current, m, true)
	})
}

func (s *Server) showEvent(w http.ResponseWriter, current *spool.Spool, m *dlq.Stored, reveal bool) {
	body := eventView(m, reveal)
	body.Fault = findFault(current, dlq.FaultOf(m).ID())
	p := s.page("Event "+body.Name, "faults")
	args := []string{"show", cmp.Or(body.Name, m.ID)}
	if reveal {
		args = append(args, "--reveal")
		p.Notice = "The private data of this event is shown. The audit file has a record of it."
	}
	p.Command, p.Body = shell(args...), body
	render(w, http.StatusOK, "event.html", p)
}

// eventPath is the address of an event.
func eventPath(id string) string { return "/events/" + url.PathEscape(id) }
