package dlqcmd

import (
	"fmt"
	"strings"
	"testing"
)

// TestDryRunShowsEveryChange: a dry run says for each group what changes in all its
// events, and marks the fields whose data disappears.
func TestDryRunShowsEveryChange(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for i := range 63 {
		private := ""
		if i < 23 {
			private = fmt.Sprintf(`,"privateMetadata":{"email":%q}`, secretValue)
		}
		h.put(deadLettered(i, fmt.Sprintf(`{"feature":"sams.user","action":"created","id":"019aa000-0000-7000-8000-%012d","user":{"userId":"%d"},"metadata":{"a":1}%s}`, i, i, private), "dlq_detail", "user.userId: expected an integer, got a string"))
	}
	for i := range 5 {
		h.put(deadLettered(100+i, typoData(i), "dlq_reason", "policy_violation", "dlq_detail", "typo: no"))
	}
	const expression = `if .user.userId | type == "string" then .user.userId |= tonumber | .metadata = {} | .privateMetadata |= null | del(.id) else del(.typo) end`
	got := h.expect(0, "", "replay", "--dry-run", "--jq", expression)
	for _, want := range []string{
		"user.userId: string → number in 63\n",
		"id: string removed in 63   <── data disappears\n",
		"metadata: object → empty object in 63   <── data disappears\n",
		"privateMetadata: object → null in 23   <── data disappears\n",
		"privateMetadata: new, null in 40\n",
		"typo: number removed in 5   <── data disappears\n",
		"before:\n{", "after:\n{",
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("want %q in %s", want, got.stderr)
		}
	}
	if n := strings.Count(got.stderr, "One of them before:"); n != 2 {
		t.Errorf("%d samples, want one of each group: %s", n, got.stderr)
	}
	h.left(68)
	// An expression that changes nothing says so.
	if got := h.expect(0, "", "replay", "--dry-run", "--reason", "invalid_event", "--no-check", "--jq", "."); !strings.Contains(got.stderr, "no change in 63\n") {
		t.Error(got.stderr)
	}
}
