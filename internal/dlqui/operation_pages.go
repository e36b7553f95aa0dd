package dlqui

import (
	"errors"
	"net/http"
)

// maxOperations bounds the operations on their list.
const maxOperations = 50

// operationPages are the list of the operations and the page of each.
type operationPages struct {
	layout     *layout
	streams    *streams
	operations *operations
}

func (p *operationPages) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /operations", p.list)
	mux.HandleFunc("GET /operations/{name}", p.show)
	mux.HandleFunc("GET /operations/{name}/live", p.live)
	mux.HandleFunc("POST /operations/{name}/apply", p.apply)
	mux.HandleFunc("POST /operations/{name}/stop", p.stop)
	mux.HandleFunc("POST /operations/{name}/restore", p.restore)
}

func (p *operationPages) list(w http.ResponseWriter, r *http.Request) {
	all, err := p.operations.list(maxOperations)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	shown := p.layout.page("Operations", "operations")
	shown.Command, shown.Body = shell("status", string(p.operations.folder)+"/PLAN.json"), all
	render(w, http.StatusOK, "operations.html", shown)
}

// with calls serve with the operation that the address names.
func (p *operationPages) with(w http.ResponseWriter, r *http.Request, serve func(*operation)) {
	o, err := p.operations.read(r.PathValue("name"))
	if err != nil {
		refuse(w, http.StatusNotFound, "There is no such operation in "+string(p.operations.folder)+".")
		return
	}
	serve(o)
}

func (p *operationPages) show(w http.ResponseWriter, r *http.Request) {
	p.with(w, r, func(o *operation) {
		shown := p.layout.page("Operation "+o.Name, "operations")
		shown.Command, shown.Body = o.command(), o
		shown.Notice = notices[r.URL.Query().Get("notice")]
		if o.Active() || o.Waits() || o.Elsewhere() {
			shown.Live = "/operations/" + o.Name + "/live"
			shown.Reload = o.Active()
		}
		p.operations.askForReceipts(r.Context(), o)
		render(w, http.StatusOK, "operation.html", shown)
	})
}

func (p *operationPages) live(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	first, err := p.operations.read(name)
	if err != nil {
		refuse(w, http.StatusNotFound, "There is no such operation.")
		return
	}
	p.streams.serve(w, r, func() (fragment, error) {
		o, err := p.operations.read(name)
		if err != nil {
			return fragment{}, err
		}
		p.operations.askForReceipts(r.Context(), o)
		// The page is loaded again when a run ends, because its forms change.
		ended := first.Active() && !o.Active()
		return fragmentOf("operation.html", "progress", o, ended || !o.Active() && !o.Waits() && !o.Elsewhere())
	})
}

// notices are the texts that an address can name. A page shows no text of an address.
var notices = map[string]string{
	"busy": "Something else runs for this operation already, perhaps from another page: it is shown below. Nothing was started.",
}

// apply applies a plan, or the rest of a plan that was stopped.
func (p *operationPages) apply(w http.ResponseWriter, r *http.Request) {
	p.with(w, r, func(o *operation) {
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
		showStarted(w, r, o, p.operations.apply(r.Context(), o, args))
	})
}

// show redirects to the page of the operation.
func (o *operation) show(w http.ResponseWriter, r *http.Request, query string) {
	http.Redirect(w, r, "/operations/"+o.Name+query, http.StatusSeeOther) //nolint:gosec // the name has the form of operationName
}

// showStarted shows the operation for which a command was started, or says why it was not.
func showStarted(w http.ResponseWriter, r *http.Request, o *operation, err error) {
	switch {
	case err == nil:
		o.show(w, r, "")
	case errors.Is(err, errBusy):
		o.show(w, r, "?notice=busy")
	default:
		refuse(w, http.StatusServiceUnavailable, err.Error())
	}
}

// stop stops the command that runs, as Ctrl-C stops a command.
func (p *operationPages) stop(w http.ResponseWriter, r *http.Request) {
	p.with(w, r, func(o *operation) {
		p.operations.stop(o)
		o.show(w, r, "")
	})
}

// restore puts the messages that the operation has removed back into the queue.
func (p *operationPages) restore(w http.ResponseWriter, r *http.Request) {
	p.with(w, r, func(o *operation) {
		if o.Plan == nil || o.Plan.Backup == 0 {
			bad(w, "This operation has no backup: it has removed nothing.")
			return
		}
		if err := confirmed(r.PostForm, o.Plan.Backup); err != nil {
			bad(w, "%v.", err)
			return
		}
		showStarted(w, r, o, p.operations.restore(r.Context(), o))
	})
}
