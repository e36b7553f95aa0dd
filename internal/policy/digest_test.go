package policy

import "testing"

func digestOf(t *testing.T, allowUnknown bool, services ...*Service) string {
	t.Helper()
	set, err := NewSet(services, allowUnknown)
	if err != nil {
		t.Fatal(err)
	}
	return set.Digest()
}

// TestDigest: the digest changes with each rule, and with nothing else.
func TestDigest(t *testing.T) {
	a := &Service{ID: "a", Environments: []string{"dev", "prod"}, Features: []string{"x.*", "y"}}
	b := &Service{ID: "b", PrivateMetadata: DropPrivate}
	want := digestOf(t, false, a, b)
	// The value is in dead-lettered messages, so it must not change from version to version.
	if want != "a03919938fae" {
		t.Errorf("the digest is %s", want)
	}
	for name, got := range map[string]string{
		"order of services":     digestOf(t, false, b, a),
		"order of environments": digestOf(t, false, &Service{ID: "a", Environments: []string{"prod", "dev", "dev"}, Features: []string{"y", "x.*"}}, b),
		"owner and runbook":     digestOf(t, false, a, &Service{ID: "b", PrivateMetadata: DropPrivate, Owner: "o", Runbook: "https://r"}),
	} {
		if got != want {
			t.Errorf("%s changes the digest", name)
		}
	}
	for name, got := range map[string]string{
		"another service":     digestOf(t, false, a, b, &Service{ID: "c"}),
		"another environment": digestOf(t, false, &Service{ID: "a", Environments: []string{"dev"}, Features: a.Features}, b),
		"another feature":     digestOf(t, false, &Service{ID: "a", Environments: a.Environments, Features: []string{"x.*"}}, b),
		"private metadata":    digestOf(t, false, a, &Service{ID: "b", PrivateMetadata: RejectPrivate}),
		"unknown services":    digestOf(t, true, a, b),
		"nothing":             digestOf(t, false),
	} {
		if got == want || len(got) != 12 {
			t.Errorf("%s: %s", name, got)
		}
	}
}
