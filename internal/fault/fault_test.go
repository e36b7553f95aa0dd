package fault

import (
	"os"
	"strings"
	"testing"
)

// golden are ids that must never change, because logs and plans have them, and an older
// `worker dlq` must compute the same ids as the worker. docs/oncall.md has the first three.
var golden = []struct{ reason, service, detail, want string }{
	{"invalid_event", "sams", "user.userId: expected an integer, got a string", "F-17ca08"},
	{"unknown_service", "cody-web", `attribute service_id: "cody-web" is not listed in services.yaml`, "F-5eff4c"},
	{"malformed_payload", "cody-gateway", "malformed JSON at byte offset 17 (the first is 0): expected the end of a string", "F-8d67f0"},
	{"unknown", "", "", "F-2da1cc"},
	{"unknown_service", "böse\n", "attribute service_id: expected an MSP service id of the form ^[a-z0-9-]+$, got a string of 6 bytes", "F-df4c96"},
}

func TestIDsNeverChange(t *testing.T) {
	page, err := os.ReadFile("../../docs/oncall.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range golden {
		f := Of(c.reason, c.service, c.detail)
		if got := f.ID(); got != c.want {
			t.Errorf("%+v: %s, want %s", c, got, c.want)
		}
		row := "| `" + c.reason + "` | `" + c.service + "` | " + f.Detail + " | `" + c.want + "` |"
		if i < 3 && !strings.Contains(string(page), row) {
			t.Errorf("docs/oncall.md has no row\n%s", row)
		}
	}
}

// TestVaryingPartsDoNotChangeTheFault compares details that differ in values, which make no
// other fault, and in fields, services or reasons, which do.
func TestVaryingPartsDoNotChangeTheFault(t *testing.T) {
	of := func(reason, service, detail string) string { return Of(reason, service, detail).ID() }
	one := of("invalid_event", "sams", `feature: expected 2 to 64 bytes, got "one"`)
	if same := of("invalid_event", "sams", `feature: expected 2 to 64 bytes, got "another one"...`); same != one {
		t.Errorf("another value: %s, want %s", same, one)
	}
	for name, other := range map[string]string{
		"reason":  of("malformed_payload", "sams", `feature: expected 2 to 64 bytes, got "one"`),
		"service": of("invalid_event", "pings", `feature: expected 2 to 64 bytes, got "one"`),
		"detail":  of("invalid_event", "sams", `action: expected 2 to 64 bytes, got "one"`),
	} {
		if other == one {
			t.Errorf("another %s: the same id %s", name, one)
		}
	}
	// The worker cuts a long detail before it writes it.
	long := "note: " + strings.Repeat("é7 ", 600)
	if whole, written := of("invalid_event", "sams", long), of("invalid_event", "sams", cut(long)); whole != written {
		t.Errorf("%s before the cut, %s after it", whole, written)
	}
}

// TestFaultHasNoPrivateText: a fault also has no text that controls a terminal.
func TestFaultHasNoPrivateText(t *testing.T) {
	f := Of("invalid_event", "alice@example.com", "id: expected a UUID, got \"bob@example.com\"\x1b[31m\n")
	if want := (Fault{"invalid_event", Hidden, "id: expected a UUID, got \"…\"\uFFFD[31m\uFFFD"}); f != want {
		t.Errorf("%+v, want %+v", f, want)
	}
}

func TestIsIDTakesOnlyFaultIDs(t *testing.T) {
	for in, want := range map[string]bool{
		"F-7c3a91": true, "F-000000": true,
		"": false, "F-": false, "F-7C3A91": false, "f-7c3a91": false, "F-7c3a9": false, "F-7c3a911": false, "7c3a91": false, "F-7c3a91\n": false,
	} {
		if got := IsID(in); got != want {
			t.Errorf("IsID(%q): %v", in, got)
		}
	}
	if id := (Fault{}).ID(); !IsID(id) {
		t.Errorf("%q is no id", id)
	}
}
