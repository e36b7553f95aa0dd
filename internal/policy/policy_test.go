package policy

import (
	"strings"
	"testing"
)

func TestService(t *testing.T) {
	s := &Service{ID: "sams", Environments: []string{"dev", "prod"}, Features: []string{"sams.*", "login", "a?c"}}
	for environment, want := range map[string]bool{"dev": true, "prod": true, "": false, "Prod": false, "staging": false} {
		if got := s.AllowsEnvironment(environment); got != want {
			t.Errorf("environment %q: %v", environment, got)
		}
	}
	for feature, want := range map[string]bool{
		"sams.": true, "sams.login": true, "sams.login.x-y": true, "login": true, "abc": true,
		"sams": false, "xsams.login": false, "loginx": false, "logi": false, "": false, "ac": false,
	} {
		if got := s.AllowsFeature(feature); got != want {
			t.Errorf("feature %q: %v", feature, got)
		}
	}
	anything := &Service{ID: "any"}
	if !anything.AllowsEnvironment("x") || !anything.AllowsFeature("x") || anything.PrivateMetadata != AllowPrivate {
		t.Error("a service without rules is restricted")
	}
}

func TestSet(t *testing.T) {
	sams, pings := &Service{ID: "sams"}, &Service{ID: "pings"}
	for _, allow := range []bool{false, true} {
		set, err := NewSet([]*Service{sams, pings}, allow)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := set.Lookup("pings"); !ok || got != pings {
			t.Errorf("got %v, %v", got, ok)
		}
		got, ok := set.Lookup("other")
		if ok != allow || allow && (got.ID != "" || !got.AllowsFeature("x") || !got.AllowsEnvironment("x")) {
			t.Errorf("an unknown service: %v, %v", got, ok)
		}
		if set.Listed("other") || !set.Listed("sams") {
			t.Error("only what is listed is listed")
		}
		if all := set.Services(); len(all) != 2 || all[0] != sams || all[1] != pings {
			t.Errorf("got %v", all)
		}
	}
}

func TestNewSetListsAllFaults(t *testing.T) {
	_, err := NewSet([]*Service{
		{ID: "a", Features: []string{"[", "ok.*", "x[a-"}},
		{ID: "b"}, {ID: "b", Features: []string{"*\\"}}, {ID: "a"},
	}, false)
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`service "a": feature "[" is not a valid glob`,
		`service "a": feature "x[a-" is not a valid glob`,
		`service "b" is listed twice`,
		`service "b": feature "*\\" is not a valid glob`,
		`service "a" is listed twice`,
	}
	if got := err.Error(); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s", got)
	}
}
