package config

import (
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// White space around a value is a fault for every variable except the YAML of
// WORKER_SERVICES. No setting needs it, and a secret that ends with a line break looks
// right wherever it is shown.

// pubsubPrefixes begin the names of the variables that every command uses.
var pubsubPrefixes = []string{"GOOGLE_CLOUD_", "PUBSUB_", "DLQ_", "RECEIPTS_", "ENVIRONMENT_ID", "LOG_", "WORKER_SERVICES_FILE"}

// trimSpace takes white space off the values, and returns the variables that had
// some and are used for the purpose.
func trimSpace(vars map[string]string, purpose Purpose) []string {
	var found []string
	for _, variable := range variables(reflect.TypeFor[Config]()) {
		value, set := vars[variable]
		trimmed := strings.TrimFunc(value, invisible)
		if !set || trimmed == value || variable == "WORKER_SERVICES" {
			continue
		}
		if vars[variable] = trimmed; trimmed == "" {
			delete(vars, variable)
		}
		if used(variable, purpose) {
			found = append(found, variable)
		}
	}
	return found
}

func used(variable string, purpose Purpose) bool {
	switch purpose {
	case ForCheck:
		return variable == "ENVIRONMENT_ID" || variable == "WORKER_SERVICES_FILE"
	case ForPubSub:
		return slices.ContainsFunc(pubsubPrefixes, func(prefix string) bool { return strings.HasPrefix(variable, prefix) })
	case ForRun:
	}
	return true
}

// invisible reports whether a character does not show: white space, the byte order
// mark, and the spaces without width.
func invisible(r rune) bool {
	return unicode.IsSpace(r) || r == '\uFEFF' || r >= '\u200B' && r <= '\u200F' || r == '\u2060'
}

// variables are the names of the variables that fill a struct.
func variables(of reflect.Type) []string {
	var names []string
	for field := range of.Fields() {
		if field.Anonymous {
			names = append(names, variables(field.Type)...)
			continue
		}
		if name, _, _ := strings.Cut(field.Tag.Get("env"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}
