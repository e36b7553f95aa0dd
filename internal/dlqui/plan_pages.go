package dlqui

import (
	"net/http"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// planPages are the page on which a person puts a plan together, and its forms.
type planPages struct {
	layout     *layout
	reading    *readingPages
	draft      *draft
	operations *operations
}

func (p *planPages) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /plan", p.show)
	mux.HandleFunc("POST /plan", p.change)
	mux.HandleFunc("POST /plan/make", p.make)
}

func (p *planPages) show(w http.ResponseWriter, r *http.Request) {
	p.reading.with(w, func(current *spool.Spool) {
		shown := p.layout.page("Plan", "plan")
		shown.Command, shown.Body = shell("plan", "--fix", "fixes.yaml", "-o", "plan.json"), planOf(p.draft.all(), current)
		render(w, http.StatusOK, "plan.html", shown)
	})
}

// drop is the action of a form that takes a fault out of the plan.
const drop = "drop"

// change puts a fault into the plan, or takes it out.
func (p *planPages) change(w http.ResponseWriter, r *http.Request) {
	id, action, jq := r.PostForm.Get("fault"), r.PostForm.Get("action"), strings.TrimSpace(r.PostForm.Get("jq"))
	if !fault.IsID(id) {
		bad(w, "Expected the id of a fault, such as F-7c3a91.")
		return
	}
	step := plan.Step{Action: plan.Action(action)}
	if step.Action == plan.Fix {
		step.JQ = jq
	}
	if action != drop {
		if err := checkStep(id, step); err != nil {
			bad(w, "%v.", err)
			return
		}
	}
	if action == drop {
		p.draft.drop(id)
	} else {
		p.draft.set(id, step)
	}
	http.Redirect(w, r, "/plan", http.StatusSeeOther)
}

// make runs `dlq plan` with the chosen steps. The command checks every event, and changes
// nothing in the queue.
func (p *planPages) make(w http.ResponseWriter, r *http.Request) {
	chosen := p.draft.all()
	if len(chosen) == 0 {
		bad(w, "The plan is empty: choose what happens to a fault first.")
		return
	}
	text, err := fixesFile(chosen)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "The plan cannot be written: "+err.Error())
		return
	}
	var flags []string
	if r.PostForm.Get("services-anyway") != "" {
		flags = append(flags, "--services-anyway")
	}
	name, err := p.operations.plan(r.Context(), text, flags...)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "The plan cannot be made: "+err.Error()+".")
		return
	}
	http.Redirect(w, r, "/operations/"+name, http.StatusSeeOther)
}
