package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Purpose is the kind of command that needs the settings. Not every command needs all.
type Purpose int

const (
	// ForPubSub is a command that talks to Pub/Sub only.
	ForPubSub Purpose = iota
	// ForCheck is a command without a network: it needs only services.yaml and the
	// environment, and ignores all other settings.
	ForCheck
	// ForRun is the worker itself.
	ForRun
)

// Fault is one thing that is wrong with the settings.
type Fault struct {
	// Variable is the environment variable to correct.
	Variable string
	// Problem says what is wrong and what is expected. It contains no secret.
	Problem string
}

// Faults is everything that is wrong with the settings.
type Faults []Fault

func (f Faults) Error() string {
	var b strings.Builder
	b.WriteString("the configuration has faults:")
	for _, fault := range f {
		fmt.Fprintf(&b, "\n  %s: %s", fault.Variable, fault.Problem)
	}
	return b.String()
}

func (f *Faults) add(variable, format string, args ...any) {
	*f = append(*f, Fault{Variable: variable, Problem: fmt.Sprintf(format, args...)})
}

var errSize = errors.New("expected a size such as 3145728 or 3MiB")

var errStreams = fmt.Errorf("expected auto or a whole number from 1 to %d", maxStreams)

// Load reads the settings from environ, which has the form of os.Environ. The
// error, if any, is of type Faults and lists all of them.
func Load(environ []string, purpose Purpose) (*Config, error) {
	vars := make(map[string]string, len(environ))
	for _, entry := range environ {
		if name, value, _ := strings.Cut(entry, "="); value != "" {
			vars[name] = value
		}
	}

	var (
		c      Config
		faults Faults
	)
	// The library collects every error. A field whose value cannot be read keeps its
	// zero value, and validate skips it.
	broken := map[string]bool{}
	for _, variable := range trimSpace(vars, purpose) {
		faults.add(variable, "begins or ends with white space or a line break: expected none")
	}
	if err := env.ParseWithOptions(&c, env.Options{Environment: vars}); err != nil {
		for _, fault := range parseFaults(err, vars) {
			broken[fault.Variable] = true
			faults = append(faults, fault)
		}
	}
	if c.Mode == "" && !broken["WORKER_MODE"] {
		c.Mode = Continuous
		if c.CloudRunJob != "" {
			c.Mode = Drain
		}
	}
	_, c.TopicGiven = vars["PUBSUB_TOPIC"]
	if purpose == ForCheck {
		faults = slices.DeleteFunc(faults, func(f Fault) bool { return broken[f.Variable] })
	} else {
		validation{&c, vars, broken, &faults}.validate(purpose)
	}
	c.loadServices(&faults)
	if len(faults) > 0 {
		return nil, faults
	}
	return &c, nil
}

// parseFaults names the variable of every value that could not be read; the
// library names the field.
func parseFaults(err error, vars map[string]string) Faults {
	var faults Faults
	var all env.AggregateError
	if !errors.As(err, &all) {
		faults.add("environment", "%v", err)
		return faults
	}
	for _, err := range all.Errors {
		var parse env.ParseError
		if !errors.As(err, &parse) {
			faults.add("environment", "%v", err)
			continue
		}
		field, _ := reflect.TypeFor[Config]().FieldByName(parse.Name)
		variable, _, _ := strings.Cut(field.Tag.Get("env"), ",")
		if strings.HasPrefix(variable, "OTEL_") {
			faults.add(variable, "%s", expected(field.Type))
			continue
		}
		faults.add(variable, "%s, got %q", expected(field.Type), clip(vars[variable]))
	}
	return faults
}

func expected(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Bytes]():
		return errSize.Error()
	case reflect.TypeFor[Streams]():
		return errStreams.Error()
	}
	switch t.String() {
	case "time.Duration":
		return "expected a duration such as 500ms, 8s or 5m"
	case "int":
		return "expected a whole number"
	case "bool":
		return "expected true or false"
	}
	return "expected another value"
}

func clip(s string) string {
	const limit = 80
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}

func trimSlash(s string) string { return strings.TrimRight(s, "/") }
