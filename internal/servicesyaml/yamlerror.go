package servicesyaml

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The library's errors name Go types, which say nothing to who writes the file.
var (
	wrongType    = regexp.MustCompile("(?s)^line (\\d+): cannot unmarshal (!!\\w+)( `.*`)? into (.+)$")
	unknownField = regexp.MustCompile(`(?s)^line (\d+): field (.*) not found in type (.+)$`)
)

// yamlKinds are words for YAML's tags.
var yamlKinds = map[string]string{
	"!!map": "a mapping", "!!seq": "a list", "!!str": "a text", "!!int": "a number", "!!float": "a number",
	"!!bool": "a boolean", "!!null": "nothing", "!!timestamp": "a date", "!!binary": "binary data",
}

// yamlForms are words for the Go types into which the file is read.
var yamlForms = map[string]string{
	"string": "a text", "[]string": "a list of texts", "[]servicesyaml.serviceEntry": "a list of services",
	"servicesyaml.serviceEntry": "a service, a mapping with an id", "servicesyaml.servicesFile": "a mapping with unknownServices and services",
	"[]catalogue.Event": "a list of events", "catalogue.Event": "an event, a mapping with feature and action",
	"map[string]string": "a mapping, of each key to its meaning",
}

var yamlFields = map[string]string{
	"servicesyaml.servicesFile": "unknownServices, services",
	"servicesyaml.serviceEntry": "id, environments, privateMetadata, features, catalogue, events, unlisted, owner, runbook",
	"catalogue.Event":           "feature, action, description, owner, metadata, privateMetadata",
}

// yamlFaults says what is wrong with the form of services.yaml, a fault each.
func yamlFaults(err error) []error {
	wrong, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		return []error{fmt.Errorf("expected YAML: %s", strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))}
	}
	var faults []error
	for _, text := range wrong.Errors {
		text := strings.Join(strings.Fields(text), " ")
		if m := wrongType.FindStringSubmatch(text); m != nil && yamlForms[m[4]] != "" {
			text = fmt.Sprintf("line %s: expected %s, got %s", m[1], yamlForms[m[4]], yamlKinds[m[2]])
		} else if m := unknownField.FindStringSubmatch(text); m != nil && yamlFields[m[3]] != "" {
			text = fmt.Sprintf("line %s: there is no field %q; expected one of %s", m[1], clip(m[2]), yamlFields[m[3]])
		}
		faults = append(faults, errors.New(text))
	}
	return faults
}
