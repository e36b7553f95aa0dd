package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/logging"
)

// audit returns the log of who changes what. It is JSON everywhere, and no level
// hides it.
func (d *desk) audit() *slog.Logger {
	return logging.New(d.env.stderr, "info", "json").With(
		"audit", true, "action", "dlq "+d.change.action, "who", d.env.who(), "filter", d.filter.String(),
		"subscription", d.cfg.DeadLetterSubscriptionName()).With(d.change.audit...)
}

// who returns who is at work, as far as the environment says it.
func (env environment) who() string {
	vars := map[string]string{}
	for _, entry := range env.vars {
		name, value, _ := strings.Cut(entry, "=")
		vars[name] = value
	}
	for _, value := range []string{vars["CLOUDSDK_CORE_ACCOUNT"], gcloudAccount(vars), vars["USER"], vars["LOGNAME"]} {
		if value != "" {
			return value
		}
	}
	return "unknown"
}

// gcloudAccount reads the active account of the Google Cloud CLI, if there is one.
func gcloudAccount(vars map[string]string) string {
	dir := vars["CLOUDSDK_CONFIG"]
	if dir == "" {
		if vars["HOME"] == "" {
			return ""
		}
		dir = filepath.Join(vars["HOME"], ".config", "gcloud")
	}
	name := "default"
	if active, err := os.ReadFile(filepath.Join(dir, "active_config")); err == nil {
		name = strings.TrimSpace(string(active))
	}
	content, err := os.ReadFile(filepath.Join(dir, "configurations", "config_"+filepath.Base(name)))
	if err != nil {
		return ""
	}
	for text := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(text, "="); ok && strings.TrimSpace(key) == "account" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
