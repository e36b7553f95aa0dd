package servicesyaml

import (
	"os"
	"path/filepath"
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
		{"services: [{id: a, private: allow}]", []string{`line 1: there is no field "private"; expected one of id, environments, privateMetadata, features, catalogue, events, unlisted, owner, runbook`}},
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
		{"services: [{id: a, catalogue: telemetry.yaml, privateMetadata: drop}]", []string{`service "a": catalogue: a file can be named in a services file only`}},
		{"services: [{id: a, catalogue: {events: []}}]", []string{"line 1: expected a text, got a mapping"}},
		{"services: [{id: a, catalogue: x, unlisted: reject, events: [{feature: ab, action: cd}]}]", []string{`service "a": catalogue: is set together with events`}},
		{"services: [{id: a, events: [{feature: ab, action: cd}]}]", []string{`service "a": the catalogue would restrict nothing: expected privateMetadata: drop or reject, or unlisted: reject`}},
		{"services: [{id: a, unlisted: allow, events: [{feature: ab, action: cd}]}]", []string{`service "a": the catalogue would restrict nothing`}},
		{"services: [{id: a, unlisted: reject}]", []string{`service "a": unlisted: expected only beside catalogue or events`}},
		{"services: [{id: a, unlisted: allow}]", []string{`service "a": unlisted: expected only beside catalogue or events`}},
		{"services: [{id: a, unlisted: drop, events: [{feature: ab, action: cd}]}]", []string{`service "a": unlisted: expected reject or allow, got "drop"`}},
		{"services: [{id: a, unlisted: reject, events: []}]", []string{`service "a": events: expected at least one, or no such field`}},
		{"services: [{id: a, privateMetadata: drop, events: }]", []string{`service "a": events: expected at least one, or no such field`}},
		{"services: [{id: a}, {id: b, events: null}]", []string{`service "b": events: expected at least one, or no such field`}},
		{"services: [{id: a, events: {}}]", []string{"line 1: expected a list of events, got a mapping"}},
		{"services: [{id: a, events: [ab]}]", []string{"line 1: expected an event, a mapping with feature and action, got a text"}},
		{"services: [{id: a, events: [{feature: ab, acton: cd}]}]", []string{`line 1: there is no field "acton"; expected one of feature, action, description, owner, metadata, privateMetadata`}},
		{"services: [{id: a, events: [{feature: ab, action: cd, metadata: [tier]}]}]", []string{"line 1: expected a mapping, of each key to its meaning, got a list"}},
		{"services: [{id: a, unlisted: reject, events: [{feature: ab}, {feature: cd, action: cd}, {feature: cd, action: cd}]}]", []string{
			`service "a": events[0] "ab" "": action: expected a lower-case letter`, `service "a": events[2] "cd" "cd": is listed twice`}},
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

// TestCatalogueFromFileOrInline: an entry has a catalogue, or refers to a file.
func TestCatalogueFromFileOrInline(t *testing.T) {
	inline, err := Parse([]byte(`
services:
  - id: cody-analytics
    privateMetadata: drop
    unlisted: reject
    events:
      - {feature: cody.hover, action: shown, metadata: {tier, durationMs: how long it took}, privateMetadata: {repository}}
      - {feature: cody.hover, action: hidden}
  - id: sams
    privateMetadata: reject
    events: [{feature: sams.user, action: created, description: Somebody signed up., owner: core-services}]
`))
	if err != nil {
		t.Fatal(err)
	}
	listed := policy.Catalogue{
		{Feature: "cody.hover", Action: "shown"}:  {Metadata: map[string]bool{"tier": true, "durationMs": true}, Private: map[string]bool{"repository": true}},
		{Feature: "cody.hover", Action: "hidden"}: {Metadata: map[string]bool{}, Private: map[string]bool{}},
	}
	want := []*policy.Service{
		{ID: "cody-analytics", PrivateMetadata: policy.DropPrivate, RejectUnlisted: true, Catalogue: listed},
		{ID: "sams", PrivateMetadata: policy.RejectPrivate, Catalogue: policy.Catalogue{{Feature: "sams.user", Action: "created"}: {Metadata: map[string]bool{}, Private: map[string]bool{}}}},
	}
	if diff := cmp.Diff(want, inline.Services()); diff != "" {
		t.Error(diff)
	}

	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const declared = "service: cody-analytics\nowner: cody\nevents:\n" +
		"- {feature: cody.hover, action: shown, description: d, metadata: {tier: t, durationMs: ms}, privateMetadata: {repository: r}}\n" +
		"- {feature: cody.hover, action: hidden, description: d}\n"
	absolute := write("catalogues/cody.yaml", declared)
	write("catalogues/bad.yaml", "service: Sams\n")
	for name, c := range map[string]string{"relative": "catalogues/cody.yaml", "absolute": absolute, "above": "../" + filepath.Base(dir) + "/catalogues/cody.yaml"} {
		fromFile, err := ParseFile(write("services.yaml", "services: [{id: cody-analytics, privateMetadata: drop, unlisted: reject, catalogue: "+c+"}]"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want[:1], fromFile.Services()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for c, want := range map[string][]string{
		"{id: sams, privateMetadata: drop, catalogue: catalogues/cody.yaml}": {`service "sams": catalogue: expected that of this service, got that of "cody-analytics"`},
		"{id: sams, privateMetadata: drop, catalogue: missing.yaml}":         {`service "sams": catalogue: expected a readable file: open`},
		"{id: sams, privateMetadata: drop, catalogue: catalogues/bad.yaml}":  {`service "sams": catalogue: service: expected an id`, `service "sams": catalogue: owner: missing`, `service "sams": catalogue: events: expected at least one`},
		"{id: sams, privateMetadata: drop, catalogue: ''}":                   {`service "sams": catalogue: expected the name of a file`},
		"{id: sams, privateMetadata: drop, catalogue: }":                     {`service "sams": catalogue: expected the name of a file`},
	} {
		_, err := ParseFile(write("services.yaml", "services: ["+c+"]"))
		if err == nil || strings.Count(err.Error(), "\n") != len(want)-1 {
			t.Errorf("%s: %v", c, err)
			continue
		}
		for i, line := range strings.Split(err.Error(), "\n") {
			if !strings.Contains(line, want[i]) {
				t.Errorf("%s: got %q, want %q", c, line, want[i])
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
