package dlqui

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxOperations bounds the operations of the page.
const maxOperations = 50

func (s *Server) operationsPage(w http.ResponseWriter, r *http.Request) {
	all, err := s.operations.list(maxOperations)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	p := s.page("Operations", "operations")
	p.Command, p.Body = shell("status", s.opts.Plans+"/PLAN.json"), all
	render(w, http.StatusOK, "operations.html", p)
}

// withOperation calls serve with the operation that the address names.
func (s *Server) withOperation(w http.ResponseWriter, r *http.Request, serve func(*operation)) {
	o, err := s.operations.read(r.PathValue("name"))
	if err != nil {
		refuse(w, http.StatusNotFound, "There is no such operation in "+s.opts.Plans+".")
		return
	}
	serve(o)
}

func (s *Server) operationPage(w http.ResponseWriter, r *http.Request) {
	s.withOperation(w, r, func(o *operation) {
		p := s.page("Operation "+o.Name, "operations")
		p.Command, p.Body = o.command(), o
		p.Notice = notices[r.URL.Query().Get("notice")]
		if o.Active() || o.Waits() || o.Elsewhere() {
			p.Live = "/operations/" + o.Name + "/live"
			p.Reload = o.Active()
		}
		s.operations.askForReceipts(r.Context(), o)
		render(w, http.StatusOK, "operation.html", p)
	})
}

func (s *Server) operationLive(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	first, err := s.operations.read(name)
	if err != nil {
		refuse(w, http.StatusNotFound, "There is no such operation.")
		return
	}
	s.stream(w, r, func() (fragment, error) {
		o, err := s.operations.read(name)
		if err != nil {
			return fragment{}, err
		}
		s.operations.askForReceipts(r.Context(), o)
		// The page is loaded again when a run ends, because its forms change.
		ended := first.Active() && !o.Active()
		return fragmentOf("operation.html", "progress", o, ended || !o.Active() && !o.Waits() && !o.Elsewhere())
	})
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
			bad(w, "There is no plan to apply: %s.", o.Error)
			return
		}
		if o.Active() {
			o.show(w, r, "?notice=busy")
			return
		}
		args, err := applyArgs(r.PostForm)
		if err == nil {
			err = confirmed(r.PostForm, o.Plan.Remaining())
		}
		if err != nil {
			bad(w, "%v.", err)
			return
		}
		shown(w, r, o, s.operations.apply(r.Context(), o, args))
	})
}

// show leads to the page of the operation.
func (o *operation) show(w http.ResponseWriter, r *http.Request, query string) {
	http.Redirect(w, r, "/operations/"+o.Name+query, http.StatusSeeOther) //nolint:gosec // the name has the form of operationName
}

// shown shows the operation for which a command was started, or says why it was not.
func shown(w http.ResponseWriter, r *http.Request, o *operation, err error) {
	switch {
	case err == nil:
		o.show(w, r, "")
	case errors.Is(err, errBusy):
		o.show(w, r, "?notice=busy")
	default:
		refuse(w, http.StatusServiceUnavailable, err.Error())
	}
}

// stopRun stops the command that runs, as Ctrl-C stops a command.
func (s *Server) stopRun(w http.ResponseWriter, r *http.Request) {
	s.withOperation(w, r, func(o *operation) {
		s.operations.stop(o)
		o.show(w, r, "")
	})
}

// restore puts the messages that the operation has removed back into the queue.
func (s *Server) restore(w http.ResponseWriter, r *http.Request) {
	s.withOperation(w, r, func(o *operation) {
		if o.Plan == nil || o.Plan.Backup == 0 {
			bad(w, "This operation has no backup: it has removed nothing.")
			return
		}
		if err := confirmed(r.PostForm, o.Plan.Backup); err != nil {
			bad(w, "%v.", err)
			return
		}
		shown(w, r, o, s.operations.restore(r.Context(), o))
	})
}
