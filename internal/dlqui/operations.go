package dlqui

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// operation is a plan with what was done of it.
type operation struct {
	Name  string
	Path  string
	Plan  *plan.Plan // nil: there is none yet
	Error string     // why the plan or its journal cannot be read
	Run   *runState  // nil: nothing was run for it by this process

	State  *plan.State
	Counts plan.Counts
	Groups []plan.GroupState
	Whys   map[string]int
	// Receipts says that receipts are read.
	Receipts bool
	// Backup is how many messages the backup has; 0 without one.
	Backup int
}

// Replays, Purges and Keeps count the messages of a plan by what happens to them.
func (o *operation) Replays() int { return o.sum(plan.Action.Publishes) }

// Purges counts the messages that are removed.
func (o *operation) Purges() int { return o.sum(func(a plan.Action) bool { return a == plan.Purge }) }

// Keeps counts the messages that stay because the plan says so.
func (o *operation) Keeps() (n int) {
	for i := range o.Plan.Groups {
		if g := &o.Plan.Groups[i]; g.Action == plan.Keep {
			n += g.Matched
		}
	}
	return n
}

// Stay counts the messages that a replay excludes.
func (o *operation) Stay() (n int) {
	for i := range o.Plan.Groups {
		n += o.Plan.Groups[i].Failing + o.Plan.Groups[i].OverMaxReplays
	}
	return n
}

// Remaining counts the messages that are not done.
func (o *operation) Remaining() int { return o.Counts.Todo + o.Counts.Left }

// Done counts the messages that are done.
func (o *operation) Done() int { return o.Counts.Published + o.Counts.Purged }

// StayOf counts the messages of a fault that a replay excludes.
func (o *operation) StayOf(g plan.GroupState) int { return g.Failing + g.OverMaxReplays }

// DoneOf counts the messages of a fault that are done.
func (o *operation) DoneOf(g plan.GroupState) int { return g.Counts.Published + g.Counts.Purged }

func (o *operation) sum(is func(plan.Action) bool) (n int) {
	for i := range o.Plan.Groups {
		if is(o.Plan.Groups[i].Action) {
			n += len(o.Plan.Groups[i].Messages)
		}
	}
	return n
}

// Shown is the run that the page shows: the questions for receipts come by themselves.
func (o *operation) Shown() *runState {
	if o.Run == nil || o.Run.Kind == asking {
		return nil
	}
	return o.Run
}

// Active reports whether something other than the question for receipts runs.
func (o *operation) Active() bool { return o.Run != nil && o.Run.Active && o.Run.Kind != asking }

// Begun reports whether the plan was applied at least in part.
func (o *operation) Begun() bool { return o.State != nil && o.State.Runs > 0 }

// Open reports whether the plan can be applied, or applied further.
func (o *operation) Open() bool { return o.Plan != nil && !o.Active() && !o.State.Complete() }

// Waits reports whether receipts may still come.
func (o *operation) Waits() bool {
	return o.Receipts && o.Begun() && !o.Active() && o.Counts.Waiting > 0 && time.Since(o.State.Last) < receiptsPatience
}

// receiptsPatience is how long after the last record a page asks for receipts.
const receiptsPatience = 24 * time.Hour

// Stage names where the operation is.
func (o *operation) Stage() string {
	switch {
	case o.Run != nil && o.Run.Active && o.Run.Kind != asking:
		return string(o.Run.Kind)
	case o.Plan == nil:
		return "not planned"
	case !o.Begun():
		return "planned"
	case o.Counts.Todo+o.Counts.Left > 0:
		return "stopped"
	case o.Receipts && o.Counts.Waiting > 0:
		return "published"
	}
	return "done"
}

// ErrNoOperation means that a name is no operation's.
var errNoOperation = errors.New("there is no such operation")

// operation reads an operation from its files.
func (s *Server) operation(name string) (*operation, error) {
	if !operationName.MatchString(name) {
		return nil, errNoOperation
	}
	o := &operation{Name: name, Path: s.planPath(name), Receipts: s.opts.About.Receipts}
	s.mu.Lock()
	now := s.runs[name]
	s.mu.Unlock()
	o.Run = now.snapshot()
	text, err := os.ReadFile(o.Path)
	switch {
	case errors.Is(err, os.ErrNotExist) && now == nil:
		return nil, errNoOperation
	case errors.Is(err, os.ErrNotExist):
		return o, nil
	case err != nil:
		o.Error = err.Error()
		return o, nil
	}
	p, err := plan.Parse(text, func(jq string) error {
		_, err := dlq.CompileFix(jq)
		return err
	})
	if err != nil {
		if o.Run == nil || !o.Run.Active { // else it is being written
			o.Error = err.Error()
		}
		return o, nil
	}
	state, err := plan.ReadJournal(plan.JournalOf(o.Path), p)
	if err != nil {
		o.Error = err.Error()
		return o, nil
	}
	o.Plan, o.State, o.Counts, o.Groups, o.Whys = p, state, state.Counts(), state.Groups(), state.Whys()
	o.Backup = countLines(plan.BackupOf(o.Path))
	return o, nil
}

// countLines counts the lines of a file; 0 if it cannot be read.
func countLines(path string) (n int) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close() //nolint:errcheck // it was only read
	buffer := make([]byte, 64<<10)
	for {
		read, err := f.Read(buffer)
		n += bytes.Count(buffer[:read], []byte{'\n'})
		if errors.Is(err, io.EOF) || err != nil {
			return n
		}
	}
}

// maxOperations bounds the operations of the page.
const maxOperations = 50

func (s *Server) operationsPage(w http.ResponseWriter, r *http.Request) {
	entries, err := os.ReadDir(s.opts.Plans)
	if err != nil {
		s.refuse(w, r, http.StatusInternalServerError, err.Error())
		return
	}
	var all []*operation
	for _, e := range slices.Backward(entries) { // by name, so by time
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || len(all) == maxOperations {
			continue
		}
		if o, err := s.operation(name); err == nil {
			all = append(all, o)
		}
	}
	p := s.page("Operations", "operations")
	p.Command, p.Body = shell("status", s.opts.Plans+"/PLAN.json"), all
	s.render(w, http.StatusOK, "operations.html", p)
}

// withOperation calls serve with the operation that the address names.
func (s *Server) withOperation(w http.ResponseWriter, r *http.Request, serve func(*operation)) {
	o, err := s.operation(r.PathValue("name"))
	if err != nil {
		s.refuse(w, r, http.StatusNotFound, "There is no such operation in "+s.opts.Plans+".")
		return
	}
	serve(o)
}

func (s *Server) operationPage(w http.ResponseWriter, r *http.Request) {
	s.withOperation(w, r, func(o *operation) {
		p := s.page("Operation "+o.Name, "operations")
		p.Command, p.Body = o.command(), o
		p.Notice = notices[r.URL.Query().Get("notice")]
		if o.Active() || o.Waits() {
			p.Live = "/operations/" + o.Name + "/live"
			p.Reload = o.Active()
		}
		s.askForReceipts(o)
		s.render(w, http.StatusOK, "operation.html", p)
	})
}

// command is the command that does what the page does next.
func (o *operation) command() string {
	switch {
	case o.Run != nil && o.Run.Active && o.Run.Kind != asking:
		return o.Run.Command
	case o.Plan == nil:
		return shell("plan", "--fix", strings.TrimSuffix(o.Path, ".json")+".fixes.yaml", "-o", o.Path)
	case o.Open():
		return shell("apply", o.Path)
	}
	return shell("status", o.Path)
}

func (s *Server) operationLive(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	first, err := s.operation(name)
	if err != nil {
		s.refuse(w, r, http.StatusNotFound, "There is no such operation.")
		return
	}
	s.stream(w, r, func() (fragment, error) {
		o, err := s.operation(name)
		if err != nil {
			return fragment{}, err
		}
		s.askForReceipts(o)
		// The page is loaded again when a run ends, because its forms change.
		ended := first.Active() && !o.Active()
		return s.fragment("operation.html", "progress", o, ended || !o.Active() && !o.Waits())
	})
}

// askForReceipts runs `dlq status`, which moves receipts into the journal, while a page
// shows an operation that waits for them.
func (s *Server) askForReceipts(o *operation) {
	if !o.Waits() {
		return
	}
	s.mu.Lock()
	now := s.runs[o.Name]
	s.mu.Unlock()
	if now != nil {
		select {
		case <-now.done:
			if now.kind == asking && time.Since(now.began) < s.opts.ReceiptsEvery {
				return
			}
		default:
			return
		}
	}
	_, _ = s.run(o.Name, asking, []string{"status", o.Path, "--output", "json"}) // another page may have done it
}

// notices are what an address may say. Any other text of an address is not shown.
var notices = map[string]string{
	"busy": "Something else runs for this operation already, perhaps from another page: it is shown below. Nothing was started.",
}

// number reads a number of a form.
func number(form url.Values, name string, otherwise int) (int, error) {
	text := strings.TrimSpace(form.Get(name))
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(strings.NewReplacer(",", "", " ", "", "_", "").Replace(text))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: expected a number of at least 0, got %q", name, text)
	}
	return n, nil
}

// confirmed returns an error unless the person has typed the number of messages.
func confirmed(form url.Values, messages int) error {
	n, err := number(form, "count", -1)
	switch {
	case err != nil:
		return err
	case n == -1:
		return fmt.Errorf("expected the number of messages, %d, to be typed", messages)
	case n != messages:
		return fmt.Errorf("the number typed is %d, and it is %d messages", n, messages)
	}
	return nil
}

// The defaults of `dlq apply`.
const (
	defaultCanaries  = 5
	defaultStopAfter = 10
)

// applyArgs returns the flags of `dlq apply` from a form.
func applyArgs(form url.Values) ([]string, error) {
	var args []string
	var errs []error
	for _, flag := range []struct {
		name      string
		otherwise int
	}{{"canary", defaultCanaries}, {"rate", 0}, {"stop-after", defaultStopAfter}} {
		n, err := number(form, flag.name, flag.otherwise)
		errs = append(errs, err)
		if n != flag.otherwise {
			args = append(args, "--"+flag.name, strconv.Itoa(n))
		}
	}
	if text := strings.TrimSpace(form.Get("canary-wait")); text != "" {
		if d, err := time.ParseDuration(text); err != nil || d <= 0 {
			errs = append(errs, fmt.Errorf("canary-wait: expected a duration such as 20m, got %q", text))
		}
		args = append(args, "--canary-wait", text)
	}
	if form.Get("services-anyway") != "" {
		args = append(args, "--services-anyway")
	}
	return args, errors.Join(errs...)
}

// apply applies a plan, or goes on with it.
func (s *Server) apply(w http.ResponseWriter, r *http.Request) {
	s.withOperation(w, r, func(o *operation) {
		if o.Plan == nil {
			s.bad(w, r, "There is no plan to apply: %s.", o.Error)
			return
		}
		if o.Active() {
			http.Redirect(w, r, "/operations/"+o.Name+"?notice=busy", http.StatusSeeOther)
			return
		}
		args, err := applyArgs(r.PostForm)
		if err == nil {
			err = confirmed(r.PostForm, o.Remaining())
		}
		if err != nil {
			s.bad(w, r, "%v.", err)
			return
		}
		s.begin(w, r, o, applying, append([]string{"apply", o.Path, "--yes", "--output", "json"}, args...))
	})
}

// begin runs a command for an operation and shows it.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, o *operation, what kind, args []string) {
	to := "/operations/" + o.Name
	if _, err := s.run(o.Name, what, args); err != nil {
		to += "?notice=busy"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// stopRun stops what runs, as Ctrl-C stops a command.
func (s *Server) stopRun(w http.ResponseWriter, r *http.Request) {
	s.withOperation(w, r, func(o *operation) {
		s.mu.Lock()
		now := s.runs[o.Name]
		s.mu.Unlock()
		if now != nil {
			now.cancel()
		}
		http.Redirect(w, r, "/operations/"+o.Name, http.StatusSeeOther)
	})
}

// restore puts what the operation has removed back into the queue.
func (s *Server) restore(w http.ResponseWriter, r *http.Request) {
	s.withOperation(w, r, func(o *operation) {
		if o.Plan == nil || o.Backup == 0 {
			s.bad(w, r, "This operation has no backup: it has removed nothing.")
			return
		}
		if err := confirmed(r.PostForm, o.Backup); err != nil {
			s.bad(w, r, "%v.", err)
			return
		}
		s.begin(w, r, o, restoring, []string{"restore", plan.BackupOf(o.Path), "--yes", "--output", "json"})
	})
}
