package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// browserPatience bounds each step in the browser.
const browserPatience = time.Minute

// browser is a headless Chromium that shows the pages of a queue.
type browser struct {
	*testing.T
	ctx  context.Context
	base string
}

// openBrowser starts a Chromium at an address.
func openBrowser(t *testing.T, address string) *browser {
	t.Helper()
	b := newBrowser(t, address)
	b.do(chromedp.Navigate(address))
	return b
}

// chromium returns the path of Chromium, or skips the test where there is none. A test that
// also starts a worker asks for it first.
func chromium(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a browser")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	testenv.NotTested(t, "Chromium is not installed here")
	return ""
}

// newBrowser starts a Chromium for the pages at an address, or skips the test where there
// is none. It fails the test if the pages' scripts complain.
func newBrowser(t *testing.T, address string) *browser {
	t.Helper()
	program := chromium(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.WindowSize(1280, 1100))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses its sandbox to root
	}
	allocator, stopAllocator := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, stop := chromedp.NewContext(allocator)
	listening, stopListening := context.WithCancel(ctx)
	messages := chromedp.Console(listening)
	complaints := make(chan []string, 1)
	go func() {
		var all []string
		for m, err := range messages {
			if err != nil {
				break
			}
			// Chromium reports refused pages, and files from an address that is not served, as
			// network errors. The tests provoke these.
			if (m.IsException() || m.Type == "error" || m.Type == "warning") && m.Source != "network" && !strings.Contains(m.Text, "http://localhost") {
				all = append(all, m.String())
			}
		}
		complaints <- all
	}()
	t.Cleanup(func() {
		stopListening()
		if all := <-complaints; len(all) > 0 {
			t.Errorf("the scripts of the pages complain: %q", all)
		}
		stop()
		stopAllocator()
	})
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return &browser{T: t, ctx: ctx, base: address[:strings.Index(address, "/start")]}
}

// do runs steps in the browser.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserPatience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.Fatalf("in the browser: %v\nthe page says: %s", err, b.text())
	}
}

// text returns the visible text of the page.
func (b *browser) text() string {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
	if err != nil {
		return "" // the page is being loaded
	}
	return strings.Join(strings.Fields(text), " ")
}

// see waits until the page shows the texts.
func (b *browser) see(texts ...string) {
	b.Helper()
	for _, want := range texts {
		if !testenv.Within(b.Context(), browserPatience, func() bool { return strings.Contains(b.text(), want) }) {
			b.Fatalf("the page does not show %q:\n%s", want, b.text())
		}
	}
}

func (b *browser) open(path string) { b.Helper(); b.do(chromedp.Navigate(b.base + path)) }

// path returns the path of the present page.
func (b *browser) path() string {
	b.Helper()
	location, err := chromedp.Run(b.ctx, chromedp.Location())
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimPrefix(location, b.base)
}

// click clicks an element, and waits for the next page.
func (b *browser) click(selector string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserPatience)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.Fatalf("click %s: %v\nthe page says: %s", selector, err, b.text())
	}
}

// write replaces the text of a field.
func (b *browser) write(selector, text string) {
	b.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelector(`+strconv.Quote(selector)+`).select()`), chromedp.SendKeys(chromedp.CSS(selector), text))
}

// scheme makes the browser prefer light or dark.
func (b *browser) scheme(name string) {
	b.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		b.Fatal(err)
	}
}

// accessible fails the test for each violation that axe-core finds, in light and dark.
func (b *browser) accessible(name string) {
	b.Helper()
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.do(chromedp.Evaluate[chromedp.Void](axe(b.T)))
		found, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](
			`axe.run().then(r => JSON.stringify(r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.map(n => n.html + " " + n.failureSummary).join(" | "))))`,
			chromedp.EvalAwaitPromise))
		if err != nil {
			b.Fatal(err)
		}
		var violations []string
		if err := json.Unmarshal([]byte(found), &violations); err != nil {
			b.Fatal(err)
		}
		for _, v := range violations {
			b.Errorf("%s, %s: %s", name, scheme, v)
		}
	}
	b.scheme("light")
}

// axe returns the source of axe-core.
func axe(t *testing.T) string {
	t.Helper()
	file, err := os.Open("testdata/axe/axe.min.js.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// picture writes a screenshot into docs/ui if -update is given.
func (b *browser) picture(name string) {
	b.Helper()
	if !*update {
		return
	}
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			b.Fatal(err)
		}
		path := filepath.Join("../../docs/ui", name+"-"+scheme+".png")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		small, err := reduce(png)
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, small, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	b.scheme("light")
}

var queueAddress = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+/start\?token=\S+`)

// localWorker runs `worker local --keep-running` until the end of the test, and returns
// the address of the queue's pages.
func localWorker(t *testing.T, variables ...string) string {
	t.Helper()
	chromium(t)
	var stdout, stderr testenv.Buffer
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, command.Env{
			Args: []string{"worker", "local", "--keep-running", "--events", "20"}, Vars: append(os.Environ(), variables...),
			Stdin: bytes.NewReader(nil), Stdout: &stdout, Stderr: &stderr,
		})
	}()
	t.Cleanup(func() {
		stop()
		if status := <-ended; status != 0 {
			t.Errorf("worker local ended with %d: %s", status, stderr.String())
		}
	})
	if !testenv.Within(t.Context(), browserPatience, func() bool { return queueAddress.MatchString(stdout.String()) }) {
		t.Fatalf("worker local prints no address: %s %s", stdout.String(), stderr.String())
	}
	return queueAddress.FindString(stdout.String())
}

// TestBrowser follows a fault to its recorded replay, in a browser, on the pages of `worker
// local --keep-running`.
func TestBrowser(t *testing.T) {
	b := openBrowser(t, localWorker(t))
	b.see("Faults", "user.userId: expected an integer, got a string", "growing", "as the running worker has it", "live events")
	b.accessible("faults")
	b.picture("faults")
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#fold").value = "service"; document.querySelector("#fold").dispatchEvent(new Event("change"))`))
	b.see("sams: 1 fault")
	b.accessible("faults, folded")
	b.open("/?text=userId")

	b.click("tbody a")
	b.see("Rejections per hour", "The newest 20 of 140 messages", "1.85.0")
	b.accessible("fault")
	b.picture("fault")
	fault := b.path()
	b.click("tbody a[href^='/events/']")
	b.see("← here", "← here")
	b.accessible("event")
	b.picture("event")
	b.open(fault)
	b.click("a[href$='/fix']")

	// The samples follow the expression as it is typed.
	b.see(".user.userId |= tonumber", "passes")
	b.write("#jq", "del(.user)")
	b.see("disappears")
	b.accessible("fix, samples")
	b.write("#jq", ".user.userId |= tonumber")
	b.click("button[name='all']")
	b.see("138 would pass", "2 would be rejected again", "user.userId string → number 138")
	b.accessible("fix")
	b.picture("fix")
	b.click("button[value='jq']")

	b.see("140 to replay", "correct and replay .user.userId |= tonumber")
	b.accessible("plan")
	b.picture("plan")
	b.click("form[action='/plan/make'] button")
	b.see("Apply the plan", "2 stay")
	b.do(chromedp.Click(chromedp.CSS("summary")))
	b.see("user.userId: string → number in 138")
	b.do(chromedp.Click(chromedp.CSS("summary")))
	b.accessible("operation, planned")
	b.picture("operation-planned")
	operation := b.path()
	b.write("#count", "137")
	b.click("form[action$='/apply'] button")
	b.see("the number typed is 137, and it is 138 messages. Nothing was changed.")
	b.accessible("refusal")
	b.open(operation)
	b.write("#count", "138")
	b.write("#canary", "3")
	b.click("form[action$='/apply'] button")

	b.see("138 published", "138 recorded", "0 waiting", "0 not done yet")
	b.see("Undo")
	b.accessible("operation, done")
	b.picture("operation")
	b.open("/operations")
	b.see("done", "138")
	b.accessible("operations")
	b.picture("operations")

	// The replayed messages are gone from the queue.
	b.open("/")
	b.click("form[action='/read'] button")
	b.see("at least 87 messages")
}

// TestBrowserPlain follows a fault to its recorded replay on Google's emulator, in a browser
// without JavaScript.
func TestBrowserPlain(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a browser")
	}
	e := emulator.New(t)
	address := localWorker(t, "PUBSUB_EMULATOR_HOST="+e.Host, "GOOGLE_CLOUD_PROJECT=plain")
	b := newBrowser(t, address)
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.Navigate(address))
	const fault = "timeStamp: unknown field; did you mean timestamp?"
	b.see("Read the queue again")
	for !strings.Contains(b.text(), fault) { // the worker rejects the samples only now
		b.click("form[action='/read'] button")
		b.see("Read the queue again")
	}
	b.write("#text", "timeStamp")
	b.click("form.filters button")
	b.see("1 fault of")
	b.click("tbody a")
	b.click("a[href$='/fix']")
	b.see(".timestamp //= .timeStamp | del(.timeStamp)", "passes")
	b.click("button[name='all']")
	b.see("1 would pass", "timeStamp string removed")
	b.click("button[value='jq']")
	b.click("form[action='/plan/make'] button")
	b.see("Apply the plan")
	b.write("#count", "1")
	b.click("form[action$='/apply'] button")
	b.see("1 published", "1 recorded", "Undo")
}

// TestBrowserRefusals provokes each refusal of the pages in a browser.
func TestBrowserRefusals(t *testing.T) {
	address := localWorker(t)
	b := openBrowser(t, address)
	b.see("Faults")
	// The printed address works once; in this browser it leads on.
	b.do(chromedp.Navigate(address))
	b.see("Faults")
	other := openBrowser(t, address)
	other.see("it works once", "End the command and start it again")
	other.open("/")
	other.see("This browser was not admitted")
	// A name that leads to this machine.
	port := b.base[strings.LastIndex(b.base, ":")+1:]
	b.do(chromedp.Navigate("http://localhost:" + port + "/"))
	b.see("This address is not served here")
	b.open("/plan")
	// A form of another page, without the token.
	b.do(chromedp.Evaluate[chromedp.Void](`(() => { const f = document.createElement("form"); f.method = "post"; f.action = "/read"; document.body.append(f); f.submit(); })()`))
	b.see("The form is not of this page")
}
