package alerts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/internal/metrics/metricstest"
)

const (
	rulesFile = "telemetry-relay.rules.yaml"
	testsFile = "telemetry-relay.test.yaml"
)

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	read(t, rulesFile, &file)
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no rules")
	}
	return all
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// promtool runs Prometheus's own tool.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out what runs programs of their own")
	}
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("REQUIRE_PROMTOOL") != "" {
			t.Fatal("REQUIRE_PROMTOOL is set, and there is no promtool: it is in Debian's package prometheus")
		}
		t.Skip("no promtool (Debian's package prometheus has it)")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

func TestRulesFireAsTested(t *testing.T) {
	promtool(t, "check", "rules", "--lint-fatal", rulesFile)
	promtool(t, "test", "rules", testsFile)
}

// TestMetricsExist holds the expressions against the catalogue.
func TestMetricsExist(t *testing.T) {
	names := map[string]bool{}
	for _, r := range rules(t) {
		if names[r.Alert] {
			t.Errorf("%s: there are two", r.Alert)
		}
		names[r.Alert] = true
		for _, err := range metricstest.Check(r.Expr) {
			t.Errorf("%s: %v", r.Alert, err)
		}
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s: severity is %q, expected page or ticket", r.Alert, s)
		}
		for _, a := range []string{"summary", "description", "runbook_url"} {
			if r.Annotations[a] == "" {
				t.Errorf("%s: no %s", r.Alert, a)
			}
		}
	}
}

// TestAlertsLinkToPages follows each alert's link to its page.
func TestAlertsLinkToPages(t *testing.T) {
	const home = "https://github.com/sourcegraph/telemetry-relay/blob/main/"
	for _, r := range rules(t) {
		link, ours := strings.CutPrefix(r.Annotations["runbook_url"], home)
		page, anchor, _ := strings.Cut(link, "#")
		data, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(page)))
		switch {
		case !ours || err != nil:
			t.Errorf("%s: there is no page %s: %v", r.Alert, r.Annotations["runbook_url"], err)
		case anchor != "" && !slices.Contains(anchors(string(data)), anchor):
			t.Errorf("%s: %s has no heading for #%s", r.Alert, page, anchor)
		case !strings.Contains(string(data), r.Alert):
			t.Errorf("%s: %s does not name it", r.Alert, page)
		}
	}
}

// anchors are those that GitHub makes of the headings.
func anchors(page string) (all []string) {
	for line := range strings.Lines(page) {
		if heading := strings.TrimLeft(line, "#"); heading != line {
			anchor := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(heading)), " ", "-")
			all = append(all, strings.Map(func(c rune) rune {
				if c == '-' || c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c) {
					return c
				}
				return -1
			}, anchor))
		}
	}
	return all
}

// TestEachAlertIsTested wants of every alert a test in which it fires, and one in
// which it does not.
func TestEachAlertIsTested(t *testing.T) {
	var file struct {
		Tests []struct {
			Cases []struct {
				Alert  string `yaml:"alertname"`
				Alerts []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	read(t, testsFile, &file)
	var fires, silent []string
	for _, test := range file.Tests {
		for _, c := range test.Cases {
			if len(c.Alerts) > 0 {
				fires = append(fires, c.Alert)
			} else {
				silent = append(silent, c.Alert)
			}
		}
	}
	for _, r := range rules(t) {
		if !slices.Contains(fires, r.Alert) {
			t.Errorf("%s: no test in which it fires", r.Alert)
		}
		if !slices.Contains(silent, r.Alert) {
			t.Errorf("%s: no test in which it is silent", r.Alert)
		}
	}
}
