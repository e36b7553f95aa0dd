package servicesyaml

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

func TestParse(t *testing.T) {
	got, err := Parse([]byte(`
# a comment
unknownServices: allow
services:
  - id: sams
    environments: [dev, prod]
    privateMetadata: drop
    features: ["sams.*"]
    owner: core-services
    runbook: https://runbook.test
  - id: pings
    privateMetadata: reject
  - {id: cody-gateway, privateMetadata: allow}
  - id: other
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []*policy.Service{
		{ID: "sams", Environments: []string{"dev", "prod"}, PrivateMetadata: policy.DropPrivate, Features: []string{"sams.*"}, Owner: "core-services", Runbook: "https://runbook.test"},
		{ID: "pings", PrivateMetadata: policy.RejectPrivate},
		{ID: "cody-gateway"},
		{ID: "other"},
	}
	if diff := cmp.Diff(want, got.Services()); diff != "" {
		t.Error(diff)
	}
	if _, ok := got.Lookup("unknown"); !ok {
		t.Error("unknown services are not allowed")
	}
	for _, source := range []string{"services: [{id: a}]", "{unknownServices: reject, services: [{id: a}]}"} {
		got, err := Parse([]byte(source))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := got.Lookup("unknown"); ok {
			t.Errorf("%s: unknown services are allowed", source)
		}
	}
	for _, source := range []string{"unknownServices: allow", "unknownServices: allow\nservices: []"} {
		if got, err := Parse([]byte(source)); err != nil || !got.AllowsUnknown() {
			t.Errorf("%s: %v", source, err)
		}
	}
}

func TestServicesFaults(t *testing.T) {
	for _, c := range []struct {
		source string
		want   []string // by line
	}{
		{"", []string{"found nothing"}},
		{"# nothing but a comment\n", []string{"found nothing"}},
		{"services:", []string{"services: expected at least one"}},
		{"services: []", []string{"services: expected at least one"}},
		{"services: null", []string{"services: expected at least one"}},
		{"services: ~\n", []string{"services: expected at least one"}},
		{"{}", []string{"services: expected at least one"}},
		{"null", []string{"services: expected at least one"}},
		{"unknownServices: reject", []string{"services: expected at least one"}},
		{"services: {}", []string{"line 1: expected a list of services, got a mapping"}},
		{"services: ''", []string{"line 1: expected a list of services, got a text"}},
		{"services: [null]", []string{"services: expected at least one"}},
		{"services: [{id: a, environments: []}]", []string{`service "a": environments: line 1: expected a list with at least one`}},
		{"services:\n- id: a\n  environments:\n", []string{`service "a": environments: line 3: expected a list with at least one`}},
		{"services: [{id: a, features: []}]", []string{`service "a": features: line 1: expected a list with at least one`}},
		{"services: [{id: a, features: null}]", []string{`service "a": features: line 1: expected a list with at least one`}},
		{"services: [{id: a, features: {}}]", []string{`service "a": features: line 1: expected a list of texts, got a mapping`}},
		{"services: [{id: a, features: [null]}]", []string{`service "a": features: line 1: one is empty`}},
		{"services: [{id: a, environments: [dev, ~]}]", []string{`service "a": environments: line 1: one is empty`}},
		{"x: &l []\nservices: [{id: a, features: *l}]", []string{`line 1: there is no field "x"`}},
		{"services: [{id: a, environments: &l []}, {id: b, environments: *l}]", []string{`service "a": environments: line 1`, `service "b": environments: line 1`}},
		{"services: [", []string{"expected YAML: line 1: did not find expected node content"}},
		{"[]", []string{"line 1: expected a mapping with unknownServices and services, got a list"}},
		{"services: {id: a}", []string{"line 1: expected a list of services, got a mapping"}},
		{"services: [a]", []string{"line 1: expected a service, a mapping with an id, got a text"}},
		{"services: [{id: [a]}]", []string{"line 1: expected a text, got a list"}},
		{"service: []", []string{`line 1: there is no field "service"; expected one of unknownServices, services`}},
		{"services: [{id: a, private: allow}]", []string{`line 1: there is no field "private"; expected one of id, environments, privateMetadata, features, owner, runbook`}},
		{"services:\n- {id: a, ID: b}\n- {id: [], nose: 1}", []string{`line 2: there is no field "ID"`, "line 3: expected a text, got a list", `line 3: there is no field "nose"`}},
		{"services: [{id: a, id: b}]", []string{`"id" already defined`}},
		{"services: [{id: a, environments: prod}]", []string{`service "a": environments: line 1: expected a list of texts, got a text`}},
		{"services: []\n---\nservices: []", []string{"expected one YAML document"}},
		{"services: []\n---\n[", []string{"expected one YAML document"}},
		{"unknownServices: maybe", []string{`unknownServices: expected reject or allow, got "maybe"`}},
		{"services: [{owner: x}]", []string{"services[0]: expected an id of lower-case letters, digits and hyphens"}},
		{"services: [{id: Sams}]", []string{`service "Sams": expected an id of lower-case letters, digits and hyphens`}},
		{"services: [{id: a_b}]", []string{`service "a_b": expected an id`}},
		{"services: [{id: a}, {id: a}]", []string{`service "a" is listed twice`}},
		{"services: [{id: a, environments: ['']}]", []string{`service "a": environments: line 1: one is empty`}},
		{"services: [{id: a, features: ['']}]", []string{`service "a": features: line 1: one is empty`}},
		{"services: [{id: a, features: ['[']}]", []string{`service "a": feature "[" is not a valid glob`}},
		{"services: [{id: a, privateMetadata: keep}]", []string{`service "a": privateMetadata: expected allow, drop or reject, got "keep"`}},
		{"services: [{id: a, privateMetadata: Allow}]", []string{`service "a": privateMetadata: expected allow, drop or reject, got "Allow"`}},
		{"{unknownServices: x, services: [{id: A}, {id: b, privateMetadata: x}, {id: b, features: ['[']}, {id: c, features: ['[']}]}", []string{
			"unknownServices: ", `service "A": expected an id`, `service "b": privateMetadata`, `service "b" is listed twice`,
			`service "b": feature "["`, `service "c": feature "["`}},
	} {
		_, err := Parse([]byte(c.source))
		if err == nil {
			t.Errorf("%s: no error", c.source)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(c.want) {
			t.Errorf("%s: got %d lines, want %d: %v", c.source, len(lines), len(c.want), err)
			continue
		}
		if strings.Contains(err.Error(), "servicesyaml.") || strings.Contains(err.Error(), "[]string") {
			t.Errorf("%s: a type of Go is named: %v", c.source, err)
		}
		for i, want := range c.want {
			if !strings.Contains(lines[i], want) {
				t.Errorf("%s: got %q, want %q", c.source, lines[i], want)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	defaults, err := os.ReadFile("../../config/services.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(defaults)
	f.Add([]byte("services: [{id: a, features: ['[']}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, source []byte) {
		if services, err := Parse(source); (services == nil) == (err == nil) {
			t.Errorf("%v, %v", services, err)
		}
	})
}
