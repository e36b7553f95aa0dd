package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
)

// configurationPage documents every variable.
const configurationPage = "../docs/configuration.md"

func readPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(configurationPage)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// defaults maps each variable that fills the fields of a struct to its default.
func defaults(of reflect.Type) map[string]string {
	all := map[string]string{}
	for _, field := range reflect.VisibleFields(of) {
		if variable, _, _ := strings.Cut(field.Tag.Get("env"), ","); variable != "" && variable != "-" {
			all[variable] = field.Tag.Get("envDefault")
		}
	}
	return all
}

// TestPageListsEveryVariable compares the tables of docs/configuration.md with the
// code: each variable has a row with its default, and no row is about another one.
func TestPageListsEveryVariable(t *testing.T) {
	page := readPage(t)
	want := defaults(reflect.TypeFor[Config]())
	_, err := Load(nil, ForRun)
	faults, _ := err.(Faults)
	for _, fault := range faults {
		if strings.HasPrefix(fault.Problem, "is required") {
			want[fault.Variable] = "required"
		}
	}

	rows := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_0-9]+)` \\| ([^|]*?) ?\\| [^|]+\\|$").FindAllStringSubmatch(page, -1) {
		variable := row[1]
		if _, twice := rows[variable]; twice {
			t.Errorf("%s has two rows", variable)
		}
		rows[variable] = strings.Trim(row[2], "`")
	}
	for variable, value := range want {
		switch got, listed := rows[variable]; {
		case !listed:
			t.Errorf("the page has no row for %s", variable)
		case got != value:
			t.Errorf("the page says that %s is %q by default; it is %q", variable, got, value)
		}
	}
	for variable := range rows {
		if _, known := want[variable]; !known {
			t.Errorf("the page lists %s, which is no setting", variable)
		}
	}
}

// TestPageListsOpenTelemetrysVariables compares the table of the variables that
// OpenTelemetry reads itself with those that the worker checks.
func TestPageListsOpenTelemetrysVariables(t *testing.T) {
	page := readPage(t)
	for _, form := range otelForms {
		if row := fmt.Sprintf("| `%s` | %s |\n", strings.Join(form.variables, "`, `"), form.expected); !strings.Contains(page, row) {
			t.Errorf("the page has no row\n%s", row)
		}
	}
	var checked []string
	for _, form := range otelForms {
		checked = append(checked, form.variables...)
	}
	checked = slices.Concat(checked, perSignal("CLIENT_CERTIFICATE"), perSignal("CLIENT_KEY"), []string{"OTEL_TRACES_SAMPLER_ARG", "OTEL_SERVICE_NAME"})
	known := defaults(reflect.TypeFor[Telemetry]())
	for _, found := range regexp.MustCompile("`(OTEL_[A-Z_0-9]+)`").FindAllStringSubmatch(page, -1) {
		if _, field := known[found[1]]; !field && !slices.Contains(checked, found[1]) {
			t.Errorf("the page names %s, which nothing reads", found[1])
		}
	}
}

// TestPageServices reads the page's services.yaml.
func TestPageServices(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(readPage(t))
	if block == nil {
		t.Fatal("the page has no services.yaml")
	}
	services, err := servicesyaml.Parse([]byte(block[1]))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := services.Lookup("sams"); !ok {
		t.Error("the example does not list sams")
	}
	if cody, ok := services.Lookup("cody-analytics"); !ok || len(cody.Catalogue) != 2 {
		t.Errorf("the example has no catalogue: %+v", cody)
	}
}
