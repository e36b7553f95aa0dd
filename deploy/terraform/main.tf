# Topics and subscriptions. Their settings are those that `worker check` wants;
# the tests hold the one against the other.

locals {
  labels = merge(var.labels, { service = "telemetry-relay" })

  letter_retention = "2678400s" # 31 days: Pub/Sub's most
}

resource "google_pubsub_topic" "events" {
  project = var.project_id
  name    = var.topic
  labels  = local.labels

  dynamic "message_storage_policy" {
    for_each = length(var.allowed_regions) > 0 ? [var.allowed_regions] : []
    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_pubsub_topic" "dead_letters" {
  project = var.project_id
  name    = "${var.topic}-dlq"
  labels  = local.labels

  dynamic "message_storage_policy" {
    for_each = length(var.allowed_regions) > 0 ? [var.allowed_regions] : []
    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

# Where the worker receives. No retry policy: released events must come at once,
# to the next worker too. No ordering or filter. No exactly-once delivery: it would
# delay the events of a killed worker by 60 s instead of 30 s, without a benefit.
resource "google_pubsub_subscription" "relay" {
  project = var.project_id
  name    = "${var.topic}-relay"
  topic   = google_pubsub_topic.events.id
  labels  = local.labels

  # For what a pull brings. The worker sets the leases of what its streams bring.
  ack_deadline_seconds       = 60
  message_retention_duration = var.event_retention

  # Never: the default deletes the subscription, and what is in it, after 31
  # idle days.
  expiration_policy {
    ttl = ""
  }

  # The safety net for an event that crashes every worker that takes it. What
  # the worker rejects, it dead-letters itself, with a reason.
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 100
  }

  lifecycle {
    prevent_destroy = true
  }

  # The dead-letter topic needs a subscription before the first message: Pub/Sub drops
  # messages of a topic without one.
  depends_on = [google_pubsub_subscription.oncall]
}

# Where on-call reads. Without a dead-letter policy and a retry policy: a letter
# that is looked at and put back must stay, and be there at once.
resource "google_pubsub_subscription" "oncall" {
  project = var.project_id
  name    = "${var.topic}-dlq-oncall"
  topic   = google_pubsub_topic.dead_letters.id
  labels  = local.labels

  ack_deadline_seconds       = 60
  message_retention_duration = local.letter_retention

  expiration_policy {
    ttl = ""
  }

  lifecycle {
    prevent_destroy = true
  }
}

# A second subscription of the dead-letter topic. The dlq commands that only read seek it
# to a snapshot of on-call's subscription, so that they take nothing from it. Seven days
# suffice: Pub/Sub makes no snapshot with an older message.
resource "google_pubsub_subscription" "view" {
  count = var.view ? 1 : 0

  project = var.project_id
  name    = "${var.topic}-dlq-view"
  topic   = google_pubsub_topic.dead_letters.id
  labels  = local.labels

  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

# Where the worker says what became of each replayed event, and where on-call reads it.
resource "google_pubsub_topic" "receipts" {
  project = var.project_id
  name    = "${var.topic}-receipts"
  labels  = local.labels

  dynamic "message_storage_policy" {
    for_each = length(var.allowed_regions) > 0 ? [var.allowed_regions] : []
    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }
}

resource "google_pubsub_subscription" "receipts" {
  project = var.project_id
  name    = "${var.topic}-receipts-oncall"
  topic   = google_pubsub_topic.receipts.id
  labels  = local.labels

  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

# Copies for developers: whatever they do with them, on-call has its own.
resource "google_pubsub_subscription" "developers" {
  count = length(var.developers) > 0 ? 1 : 0

  project = var.project_id
  name    = "${var.topic}-dlq-developers"
  topic   = google_pubsub_topic.dead_letters.id
  labels  = local.labels

  ack_deadline_seconds       = 60
  message_retention_duration = local.letter_retention

  expiration_policy {
    ttl = ""
  }
}
