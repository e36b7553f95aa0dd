package grafana_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/metrics/metricstest"
)

const file = "telemetry-relay.json"

type dashboard struct {
	Panels []panel `json:"panels"`
}

type panel struct {
	ID          int    `json:"id"`
	Title       string `json:"title"`
	Description string `json:"description"`
	GridPos     struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Datasource struct {
		UID string `json:"uid"`
	} `json:"datasource"`
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
}

func load(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("no panels")
	}
	return d
}

// TestMetricsExist holds the panels against the catalogue, in both directions.
func TestMetricsExist(t *testing.T) {
	var all strings.Builder
	for _, p := range load(t).Panels {
		if len(p.Targets) == 0 {
			t.Errorf("%s: it shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			all.WriteString(target.Expr + "\n")
			for _, err := range metricstest.Check(target.Expr) {
				t.Errorf("%s: %v", p.Title, err)
			}
		}
	}
	for _, d := range metrics.Catalogue {
		if !strings.Contains(all.String(), d.FullName()) {
			t.Errorf("no panel shows %s", d.FullName())
		}
	}
}

// TestPanelsAreDescribed wants panels with titles of their own, with descriptions, and not on top of
// each other.
func TestPanelsAreDescribed(t *testing.T) {
	taken := map[string]string{}
	ids, titles := map[int]bool{}, map[string]bool{}
	for _, p := range load(t).Panels {
		if ids[p.ID] || titles[p.Title] || p.Title == "" || p.Description == "" {
			t.Errorf("panel %d %q: id and title must be its own, and it needs a description", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if p.Datasource.UID != "${datasource}" {
			t.Errorf("%s: the data source is %q", p.Title, p.Datasource.UID)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				at := fmt.Sprint(x, ",", y)
				if taken[at] != "" || x >= 24 {
					t.Errorf("%s: overlaps with %q at %s", p.Title, taken[at], at)
				}
				taken[at] = p.Title
			}
		}
	}
}

// TestAlertsAreNamed wants each alert to be found on the dashboard.
func TestAlertsAreNamed(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert string `yaml:"alert"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	data, err := os.ReadFile("../alerts/telemetry-relay.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &rules); err != nil {
		t.Fatal(err)
	}
	var descriptions strings.Builder
	for _, p := range load(t).Panels {
		descriptions.WriteString(p.Description)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if !strings.Contains(descriptions.String(), r.Alert) {
				t.Errorf("no panel says that it shows what %s is about", r.Alert)
			}
		}
	}
}

// variables are replaced as Grafana does.
var variables = strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$service", ".*")

// TestExpressionsParse has Prometheus's own tool parse the expressions.
func TestExpressionsParse(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what runs programs of their own")
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("REQUIRE_PROMTOOL") != "" {
			t.Fatal("REQUIRE_PROMTOOL is set, and there is no promtool: it is in Debian's package prometheus")
		}
		t.Skip("no promtool (Debian's package prometheus has it)")
	}
	var rules []map[string]string
	for _, p := range load(t).Panels {
		for i, target := range p.Targets {
			rules = append(rules, map[string]string{"record": fmt.Sprintf("panel_%d_%d", p.ID, i), "expr": variables.Replace(target.Expr)})
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", name).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
