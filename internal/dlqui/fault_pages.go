package dlqui

import (
	"net/http"
	"slices"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// faultPages are the list of the faults and the page of each.
type faultPages struct {
	layout  *layout
	reading *readingPages
	draft   *draft
}

func (p *faultPages) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", p.list)
	mux.HandleFunc("GET /faults/{fault}", p.show)
}

// faultsBody is the data of the page of faults.
type faultsBody struct {
	Query  faultsQuery
	Groups []*faultGroup
	// Shown and Count are the faults and messages that the query selects, of All faults.
	// Rest of the Shown are not on the page, which has Limit.
	Shown, Count, All, Rest, Limit  int
	AllLink                         string
	Reasons, Services, Environments []string
	Orders, Folds                   []choice
	Chosen                          map[string]plan.Step
}

func (p *faultPages) list(w http.ResponseWriter, r *http.Request) {
	p.reading.with(w, func(current *spool.Spool) {
		q := parseFaultsQuery(r.URL.Query())
		body := faultsBody{Query: q, Orders: orders, Folds: folds, Chosen: p.draft.all(), All: len(current.Faults())}
		body.Groups, body.Shown, body.Count = q.groups(current.Faults())
		if body.Shown > maxRows && !q.All {
			body.Rest, body.Limit = body.Shown-maxRows, maxRows
			all := r.URL.Query()
			all.Set("all", "1")
			body.AllLink = "/?" + all.Encode()
		}
		for _, f := range current.Faults() {
			body.Reasons = append(body.Reasons, f.Reason)
			body.Services = append(body.Services, f.Service)
			body.Environments = append(body.Environments, f.Environments...)
		}
		for _, list := range []*[]string{&body.Reasons, &body.Services, &body.Environments} {
			slices.Sort(*list)
			*list = slices.DeleteFunc(slices.Compact(*list), func(s string) bool { return s == "" })
		}
		shown := p.layout.page("Faults", "faults")
		shown.Command, shown.Body, shown.Follow = q.command(), body, shown.Banner.ReadAgain
		render(w, http.StatusOK, "faults.html", shown)
	})
}

// faultBody is the data of the page of a fault.
type faultBody struct {
	Fault    *dlq.FaultCount
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

// remediesOf describes the form of a fault, with the step that the draft has for it.
func remediesOf(d *draft, fault string) remedies {
	step, ok := d.all()[fault]
	return remedies{Fault: fault, Chosen: step, InPlan: ok}
}

func (p *faultPages) show(w http.ResponseWriter, r *http.Request) {
	p.reading.withFault(w, r, func(current *spool.Spool, f *dlq.FaultCount) {
		messages, err := samples(r, current, f.ID, maxSamples)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		body := faultBody{Fault: f, Remedies: remediesOf(p.draft, f.ID)}
		body.Info, _ = dlq.FindReason(event.Reason(f.Reason))
		for _, m := range messages {
			body.Samples = append(body.Samples, sampleOf(m))
		}
		shown := p.layout.page("Fault "+f.ID, "faults")
		shown.Command, shown.Body = shell("list", "--fault", f.ID, "--limit", "20"), body
		render(w, http.StatusOK, "fault.html", shown)
	})
}
