package main

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
)

var alertNames = []string{
	"TelemetryRelayOldestHeldTooOld", "TelemetryRelayRejects", "TelemetryRelayGatewayAway", "TelemetryRelaySAMSAway",
	"TelemetryRelayDeadLetterWritesFailing", "TelemetryRelayBooksDoNotBalance", "TelemetryRelayJobNotSucceeding",
	"TelemetryRelayJobEndsAtDeadline", "TelemetryRelayEventsUndecided",
	"TelemetryRelayNoStream", "TelemetryRelayStreamsRefused", "TelemetryRelayDrainUnproven",
	"TelemetryRelayGatewaySlow",
}

// guides are the pages that are about neither a reason nor an alert.
var guides = []string{"plan"}

// TestRunbookHasAPageForEachReasonAndAlert: each page must be linked from the first page,
// and have the sections that on-call needs.
func TestRunbookHasAPageForEachReasonAndAlert(t *testing.T) {
	read := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(runbookDir, path))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	entry := read("oncall.md")
	rules, err := os.ReadFile("../../deploy/alerts/telemetry-relay.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^\s*- alert: (\w+)$`).FindAllSubmatch(rules, -1) {
		if !slices.Contains(alertNames, string(found[1])) {
			t.Errorf("there is no page about the alert %s", found[1])
		}
	}
	pages := map[string][]string{}
	for _, alert := range alertNames {
		pages[alert] = []string{"## Look", "## Fix", "## Replay, purge"}
		if !strings.Contains(string(rules), "- alert: "+alert+"\n") {
			t.Errorf("there is no alert %s", alert)
		}
	}
	for _, row := range dlq.Reasons {
		pages[string(row.Reason)] = []string{"## Look", "## Fix", "## Replay when", "## Purge when"}
	}
	for page, parts := range pages {
		text := read("oncall/" + page + ".md")
		for _, part := range append(parts, "# "+page+"\n") {
			if !strings.Contains(text, part) {
				t.Errorf("docs/oncall/%s.md has no %q", page, part)
			}
		}
		if !strings.Contains(entry, "(oncall/"+page+".md)") {
			t.Errorf("docs/oncall.md does not link to the page of %s", page)
		}
	}
	files, err := filepath.Glob(filepath.Join(runbookDir, "oncall", "*"))
	if err != nil || len(files) != len(pages)+len(guides) {
		t.Errorf("%d files for %d pages: %v", len(files), len(pages)+len(guides), err)
	}
	for _, guide := range guides {
		if !strings.Contains(entry, "(oncall/"+guide+".md)") {
			t.Errorf("docs/oncall.md does not link to %s", guide)
		}
	}
	if first, _, _ := strings.Cut(entry, "## Reasons"); strings.Count(first, "\n$ ") != 3 {
		t.Error("docs/oncall.md does not begin with three commands")
	}
}

// TestRunbookNamesEachRefusalCode: the page about refused streams must name each code that
// the metric can have.
func TestRunbookNamesEachRefusalCode(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(runbookDir, "oncall", "TelemetryRelayStreamsRefused.md"))
	if err != nil {
		t.Fatal(err)
	}
	d, ok := metrics.Find("pubsub_stream_refusals_total")
	if !ok || len(d.Labels) != 1 || len(d.Labels[0].Values) == 0 {
		t.Fatalf("the metric is %+v", d)
	}
	for _, code := range d.Labels[0].Values {
		if !strings.Contains(string(page), "| `"+code+"` | ") {
			t.Errorf("the page does not say what to check for %s", code)
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code := regexp.MustCompile("(?ms)^```.*?^```|`[^`\n]*`")
	links := 0
	for _, file := range markdown(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(code.ReplaceAllString(string(text), ""), -1) {
			links++
			to, err := url.Parse(found[1])
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if to.IsAbs() {
				continue
			}
			target := file
			if to.Path != "" {
				target = filepath.Join(filepath.Dir(file), to.Path)
			}
			content, err := os.ReadFile(target)
			if info, e := os.Stat(target); e == nil && info.IsDir() {
				err = nil
			}
			if err != nil {
				t.Errorf("%s links to %s: %v", file, found[1], err)
			} else if to.Fragment != "" && !slices.Contains(anchors(string(content)), to.Fragment) {
				t.Errorf("%s links to %s: there is no such heading", file, found[1])
			}
		}
	}
	if links < 20 {
		t.Errorf("found only %d links", links)
	}
}

// markdown returns the names of all pages.
func markdown(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"../../*.md", "../../*/*.md", "../../*/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	return files
}

// anchors returns the anchors that a code host makes of headings.
func anchors(markdown string) []string {
	var all []string
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(markdown, -1) {
		kept := regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all = append(all, strings.ReplaceAll(kept, " ", "-"))
	}
	return all
}

func TestAlertsLinkToPages(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/alerts/telemetry-relay.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range strings.Split(string(rules), "- alert: ")[1:] {
		name, rest, _ := strings.Cut(rule, "\n")
		if want := "/blob/main/docs/oncall/" + name + ".md\n"; !strings.Contains(rest, want) {
			t.Errorf("the alert %s does not link to its page", name)
		}
	}
}
