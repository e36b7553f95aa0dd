# Alerts on Pub/Sub's own metric for the age of the oldest message. They fire also
# when no worker runs.

locals {
  oldest = "metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = "
}

resource "google_monitoring_alert_policy" "events_wait" {
  project               = var.project_id
  display_name          = "telemetry-relay: events are not relayed"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = var.notification_channels

  conditions {
    display_name = "The oldest event has waited for ${var.event_age_alert} s"

    condition_threshold {
      filter          = "${local.oldest}\"${google_pubsub_subscription.relay.name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = var.event_age_alert
      duration        = "300s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "Events wait in ${google_pubsub_subscription.relay.name} and are deleted after ${var.event_retention}. Run `worker check`, then see ${var.runbook_url}"
  }
}

resource "google_monitoring_alert_policy" "letters_wait" {
  project               = var.project_id
  display_name          = "telemetry-relay: dead-lettered messages wait for a person"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = var.notification_channels

  conditions {
    display_name = "The oldest dead-lettered message has waited for ${var.letter_age_alert} s"

    condition_threshold {
      filter          = "${local.oldest}\"${google_pubsub_subscription.oncall.name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = var.letter_age_alert
      duration        = "300s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "Rejected events wait in ${google_pubsub_subscription.oncall.name} and are deleted after 31 days. Run `worker dlq stats`, then see ${var.runbook_url}"
  }
}

resource "google_monitoring_alert_policy" "letters_vanish" {
  project               = var.project_id
  display_name          = "telemetry-relay: dead-lettered messages are about to be lost"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = var.notification_channels

  conditions {
    display_name = "The oldest dead-lettered message is 24 days old; Pub/Sub deletes it after 31 days"

    condition_threshold {
      filter          = "${local.oldest}\"${google_pubsub_subscription.oncall.name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 2073600
      duration        = "300s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "Save them with `worker dlq export` before Pub/Sub deletes them, then see ${var.runbook_url}"
  }
}
