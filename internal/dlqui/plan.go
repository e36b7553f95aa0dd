package dlqui

import (
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
)

// planBody is the data of the page on which a plan is put together.
type planBody struct {
	Rows []planRow
	// Replay, Purge and Keep count messages by what happens to them. Unnamed counts the
	// messages of faults that are not in the plan.
	Replay, Purge, Keep, Unnamed int
	Fixes                        string // the text of the file for `dlq plan --fix`
}

// planRow is a fault of the plan.
type planRow struct {
	ID    string
	Step  plan.Step
	Fault *dlq.FaultCount // nil: no message that was read has it
}

// planOf describes the chosen steps with the numbers of the spool.
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

// checkStep returns the error with which `dlq plan` would refuse a step.
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
