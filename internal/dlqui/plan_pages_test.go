package dlqui

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// TestPlanIsMadeByTheCommand: the command reads the file of fixes that the page has written.
func TestPlanIsMadeByTheCommand(t *testing.T) {
	user, typo := faultID(userDetail), faultID(typoDetail)
	queue := &fakeQueue{messages: append(queueOf(3, userDetail), rejected(10, typoDetail, `{}`))}
	queue.runs = func(_ context.Context, args []string, _, stderr io.Writer) int {
		fmt.Fprintln(stderr, "worker: events are checked with the services list abc")
		return status(makePlan(args[4], user, plan.Step{Action: plan.Fix, JQ: "."}, "q0", "q1", "q2"))
	}
	b := open(t, queue)
	for _, form := range [][]string{{"fault", user, "action", "jq", "jq", "del(.x) # it's"}, {"fault", typo, "action", "purge"}} {
		if w := b.post("/plan", form...); w.Code != http.StatusSeeOther {
			t.Fatalf("%v: %d %s", form, w.Code, text(w.Body.String()))
		}
	}
	b.want(b.get("/plan"), "3 to replay", "1 to purge", "correct and replay del(.x) # it's", "purge, with a backup", "Plan (2)")
	if w := b.post("/plan", "fault", typo, "action", "drop"); w.Code != http.StatusSeeOther {
		t.Fatal(w.Code)
	}
	w := b.post("/plan/make")
	to := w.Header().Get("Location")
	if !strings.HasPrefix(to, "/operations/") {
		t.Fatalf("%d %s", w.Code, text(w.Body.String()))
	}
	stream := b.get(to + "/live")
	b.want(stream, "worker dlq plan --fix", "events are checked with the services list abc")
	b.want(b.get(to), "planned", "3 to replay", "0 to purge", "Type the number of messages, 3, to confirm")
	ran := queue.commands()
	if len(ran) != 1 {
		t.Fatalf("ran %v", ran)
	}
	text, err := os.ReadFile(ran[0][2])
	if err != nil {
		t.Fatal(err)
	}
	fixes, err := plan.ParseFixes(text, func(string) error { return nil })
	if want := (plan.Fixes{user: {Action: plan.Fix, JQ: "del(.x) # it's"}}); err != nil || len(fixes) != 1 || fixes[user] != want[user] {
		t.Errorf("%s: %v, %v", text, fixes, err)
	}
}

func status(err error) int {
	if err != nil {
		return 1
	}
	return 0
}
