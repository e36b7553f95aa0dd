package main

import (
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// TestLocalSuggestsAnEventThatTheListTakes compares the suggested command for several
// services lists.
func TestLocalSuggestsAnEventThatTheListTakes(t *testing.T) {
	const plain = `echo '{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created"}}' | worker publish`
	for _, test := range []struct {
		name     string
		own      bool
		services []*policy.Service
		want     string
	}{
		{"the embedded list", false, []*policy.Service{{ID: "cody"}}, plain},
		{"any feature", true, []*policy.Service{{ID: "cody"}},
			`echo '{"attributes":{"service_id":"cody"},"data":{"feature":"example.hello","action":"created"}}' | worker publish --as-is`},
		{"a glob and environments", true, []*policy.Service{{ID: "cody", Environments: []string{"dev", "prod"}, Features: []string{"cody.*"}}},
			`echo '{"attributes":{"service_id":"cody","service_environment":"dev"},"data":{"feature":"cody.hello","action":"created"}}' | worker publish --as-is`},
		{"a catalogue that lists everything, and another service", true, []*policy.Service{{ID: "cody", RejectUnlisted: true}, {ID: "search", Features: []string{"search"}}},
			`echo '{"attributes":{"service_id":"search"},"data":{"feature":"search","action":"created"}}' | worker publish --as-is`},
		{"none", true, nil, plain + " --as-is"},
	} {
		set, err := policy.NewSet(test.services, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := sampleCommand(set, test.own); got != test.want {
			t.Errorf("%s:\n%s, want\n%s", test.name, got, test.want)
		}
	}
}
