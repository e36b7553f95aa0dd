package main

import (
	"bufio"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestLocalPageShowsEachEvent: the page of `worker local` shows each event as it arrives.
// Without a script it shows new events when it is loaded again. It never shows private
// metadata.
func TestLocalPageShowsEachEvent(t *testing.T) {
	t.Parallel()
	env := newDeveloperEnv(t, `WORKER_SERVICES={services: [{id: cody-analytics, privateMetadata: drop, events: [{feature: cody.hover, action: shown, privateMetadata: {repository}}]}]}`)
	first := env.background("worker local --keep-running --events 0")
	env.eventually("the first terminal is ready", func() bool { return strings.Contains(first.String(), "Stop with Ctrl-C.\n") })
	address := regexp.MustCompile(`and at (http://127\.0\.0\.1:\d+/)\n`).FindStringSubmatch(first.String())
	if address == nil {
		t.Fatalf("no address of a page in\n%s", first)
	}
	for _, export := range regexp.MustCompile(`(?m)^ +export (\S+)$`).FindAllStringSubmatch(first.String(), -1) {
		env.environ = append(env.environ, export[1])
	}

	client := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) io.ReadCloser {
		t.Helper()
		answer, err := client.Get(address[1] + path)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v, %v", path, answer, err)
		}
		return answer.Body
	}
	live := get("live?after=0")
	defer live.Close()
	const secret = "pr1vate-mark"
	env.shell(`printf '%s\n' ` +
		`'{"attributes":{"service_id":"cody-analytics","service_environment":"dev"},"data":{"feature":"cody.hover","action":"shown","metadata":{"tier":2},"privateMetadata":{"repository":"` + secret + `","` + secret + `":1}}}' ` +
		`'{"attributes":{"service_id":"cody-analytics"},"data":{"feature":"cody.hover","action":"<b>","privateMetadata":{"repository":"` + secret + `"}}}' ` +
		`| worker publish --as-is`)

	wants := []string{
		`>recorded<`, `cody-analytics<small>dev</small>`, `<td>cody.hover</td>`, `<td>shown</td>`, `tier=2 <em>1 private field, hidden</em>`, `1 recorded`,
		`>rejected<`, `cody-analytics<small>local</small>`, `<td>&lt;b&gt;</td>`, `because <code>invalid_event</code>: action: expected 2 to 64 bytes`, `1 rejected`,
	}
	all := func(text string) bool {
		for _, want := range wants {
			if !strings.Contains(text, want) {
				return false
			}
		}
		return true
	}
	var arrived strings.Builder
	for lines := bufio.NewScanner(live); !all(arrived.String()); arrived.WriteString(lines.Text() + "\n") {
		if !lines.Scan() {
			t.Fatalf("the stream ends (%v) without %q\n%s", lines.Err(), wants, arrived.String())
		}
	}
	body := get("")
	defer body.Close()
	page, err := io.ReadAll(body)
	env.must(err)
	if !all(string(page)) {
		t.Errorf("want %q in\n%s", wants, page)
	}
	env.eventually("the terminal says the same", func() bool {
		return strings.Contains(first.String(), "recorded  cody-analytics/dev  cody.hover/shown  ") &&
			strings.Contains(first.String(), "rejected  cody-analytics/local  cody.hover/<b>  invalid_event: action: expected")
	})
	for where, text := range map[string]string{"stream": arrived.String(), "page": string(page), "terminal": first.String()} {
		if strings.Contains(text, secret) {
			t.Errorf("private metadata is in the %s:\n%s", where, text)
		}
	}
}
