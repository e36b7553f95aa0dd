package dlqui

import (
	"bytes"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// page is the data of the layout, which all pages share.
type page struct {
	Title string
	// Section is the entry of the navigation that is marked.
	Section string
	CSRF    string
	Banner  *banner
	// Command is the command that does the same as the page.
	Command string
	// Notice says what the last action did.
	Notice string
	// Live is the address of the live part; empty: the page does not change. Reload loads
	// the whole page when the live part is done.
	Live   string
	Reload bool
	// Follow loads the page again when the reading that goes on has ended.
	Follow bool
	// GoTo is the address that the browser loads next by itself; empty: none.
	GoTo string
	// Body is the data of the page's own template.
	Body any
}

// functions are the functions of the templates.
var functions = template.FuncMap{
	"clean": terminal.Clean,
	"comma": func(n int) string { return humanize.Comma(int64(n)) },
	"ago":   func(t time.Time) string { return dlq.Ago(t, time.Now()) },
	"stamp": func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") },
	"plural": func(n int, noun string) string {
		if n != 1 {
			noun += "s"
		}
		return humanize.Comma(int64(n)) + " " + noun
	},
	"percent": func(part, all int) string {
		if all == 0 {
			return "-"
		}
		return fmt.Sprintf("%d%%", 100*part/all)
	},
	"dash": func(s string) string {
		if s == "" {
			return "-"
		}
		return terminal.Clean(s)
	},
	"chart": chart,
	"web":   web,
}

// web returns an address of the web, and nothing for any other: a runbook comes from
// services.yaml, and its address could be a script.
func web(address string) string {
	if strings.HasPrefix(address, "https://") || strings.HasPrefix(address, "http://") {
		return address
	}
	return ""
}

// templates has the templates of each page by the name of its file.
var templates = parse()

func parse() map[string]*template.Template {
	all := map[string]*template.Template{}
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		panic(err) // the pattern is constant
	}
	for _, name := range names {
		base := path.Base(name)
		if base == "layout.html" || base == "parts.html" {
			continue
		}
		all[base] = template.Must(template.New("layout.html").Funcs(functions).ParseFS(files, "templates/layout.html", "templates/parts.html", name))
	}
	return all
}

// render writes a page.
func render(w http.ResponseWriter, status int, file string, p *page) {
	var out bytes.Buffer
	if err := templates[file].Execute(&out, p); err != nil {
		http.Error(w, "The page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // the browser may have gone
}

// refuse writes the page that says why a request is not served.
func refuse(w http.ResponseWriter, status int, why string) {
	render(w, status, "refused.html", &page{Title: http.StatusText(status), Body: why})
}

// bad refuses a form. The text says what was expected.
func bad(w http.ResponseWriter, format string, args ...any) {
	refuse(w, http.StatusBadRequest, fmt.Sprintf(format, args...)+" Nothing was changed.")
}

// plainWord matches words that a shell takes literally.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`)

// shell returns a command of `worker dlq`, quoted for a shell.
func shell(args ...string) string {
	var b strings.Builder
	b.WriteString("worker dlq")
	for _, arg := range args {
		b.WriteByte(' ')
		if plainWord.MatchString(arg) {
			b.WriteString(arg)
			continue
		}
		b.WriteString("'" + strings.ReplaceAll(arg, "'", `'\''`) + "'")
	}
	return b.String()
}
