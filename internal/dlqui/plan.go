package dlqui

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// planBody is the data of the page on which a plan is put together.
type planBody struct {
	Rows []planRow
	// Replay, Purge and Keep count messages; Unnamed are those of faults that are not in
	// the plan.
	Replay, Purge, Keep, Unnamed int
	Fixes                        string // the file of the command
}

// planRow is a fault of the plan.
type planRow struct {
	ID    string
	Step  plan.Step
	Fault *dlq.FaultCount // nil: no message that was read has it
}

func (s *Server) planPage(w http.ResponseWriter, r *http.Request) {
	s.withSpool(w, r, func(current *spool.Spool) {
		p := s.page("Plan", "plan")
		p.Command, p.Body = shell("plan", "--fix", "fixes.yaml", "-o", "plan.json"), planOf(s.draft.all(), current)
		render(w, http.StatusOK, "plan.html", p)
	})
}

// planOf describes the chosen steps with the numbers of the reading.
func planOf(chosen map[string]plan.Step, current *spool.Spool) planBody {
	var body planBody
	named := 0
	for _, id := range slices.Sorted(maps.Keys(chosen)) {
		row := planRow{ID: id, Step: chosen[id], Fault: findFault(current, id)}
		n := len(current.Of(id))
		named += n
		switch {
		case row.Step.Action.Publishes():
			body.Replay += n
		case row.Step.Action == plan.Purge:
			body.Purge += n
		default:
			body.Keep += n
		}
		body.Rows = append(body.Rows, row)
	}
	body.Unnamed = current.Len() - named
	if text, err := fixesFile(chosen); err == nil {
		body.Fixes = string(text)
	}
	return body
}

// fixesFile returns the file that `dlq plan --fix` reads.
func fixesFile(chosen map[string]plan.Step) ([]byte, error) {
	file := map[string]any{}
	for id, step := range chosen {
		if step.Action == plan.Fix {
			file[id] = map[string]string{string(plan.Fix): step.JQ}
		} else {
			file[id] = string(step.Action)
		}
	}
	return yaml.Marshal(file)
}

// drop is the action of a form that takes a fault out of the plan.
const drop = "drop"

// changePlan puts a fault into the plan, or takes it out.
func (s *Server) changePlan(w http.ResponseWriter, r *http.Request) {
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
		s.draft.drop(id)
	} else {
		s.draft.set(id, step)
	}
	http.Redirect(w, r, "/plan", http.StatusSeeOther)
}

// checkStep refuses what the command would refuse, with the same words.
func checkStep(id string, step plan.Step) error {
	text, err := fixesFile(map[string]plan.Step{id: step})
	if err != nil {
		return err
	}
	_, err = plan.ParseFixes(text, func(jq string) error {
		_, err := dlq.CompileFix(jq)
		return err
	})
	return err
}

// makePlan runs `dlq plan` with the chosen steps. It checks every event, and changes
// nothing in the queue.
func (s *Server) makePlan(w http.ResponseWriter, r *http.Request) {
	chosen := s.draft.all()
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
	name, err := s.operations.plan(r.Context(), text, flags...)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "The plan cannot be made: "+err.Error()+".")
		return
	}
	http.Redirect(w, r, "/operations/"+name, http.StatusSeeOther)
}
