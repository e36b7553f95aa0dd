# Who may do what, on single topics and subscriptions. The one grant on the project is that
# of snapshots, which Pub/Sub knows on no other level. These grants are additive: they
# remove no other grant.

# Services publish events, and can neither read nor dead-letter any.
resource "google_pubsub_topic_iam_member" "publisher" {
  for_each = var.publishers

  project = var.project_id
  topic   = google_pubsub_topic.events.name
  role    = "roles/pubsub.publisher"
  member  = each.value

  # Without a subscription what is published is gone.
  depends_on = [google_pubsub_subscription.relay]
}

# The worker receives events and writes dead-lettered messages; it reads none of them.
resource "google_pubsub_subscription_iam_member" "worker_receives" {
  project      = var.project_id
  subscription = google_pubsub_subscription.relay.name
  role         = "roles/pubsub.subscriber"
  member       = var.worker
}

resource "google_pubsub_topic_iam_member" "worker_dead_letters" {
  project = var.project_id
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = var.worker

  depends_on = [google_pubsub_subscription.oncall]
}

# On-call reads and removes dead-lettered messages, and publishes events again (replay).
resource "google_pubsub_subscription_iam_member" "oncall_reads" {
  for_each = var.oncall

  project      = var.project_id
  subscription = google_pubsub_subscription.oncall.name
  role         = "roles/pubsub.subscriber"
  member       = each.value
}

resource "google_pubsub_topic_iam_member" "oncall_replays" {
  for_each = var.oncall

  project = var.project_id
  topic   = google_pubsub_topic.events.name
  role    = "roles/pubsub.publisher"
  member  = each.value
}

# `worker dlq restore` puts removed messages back.
resource "google_pubsub_topic_iam_member" "oncall_restores" {
  for_each = var.oncall

  project = var.project_id
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = each.value
}

# The worker writes receipts, and on-call reads them.
resource "google_pubsub_topic_iam_member" "worker_receipts" {
  project = var.project_id
  topic   = google_pubsub_topic.receipts.name
  role    = "roles/pubsub.publisher"
  member  = var.worker

  depends_on = [google_pubsub_subscription.receipts]
}

resource "google_pubsub_subscription_iam_member" "oncall_receipts" {
  for_each = var.oncall

  project      = var.project_id
  subscription = google_pubsub_subscription.receipts.name
  role         = "roles/pubsub.subscriber"
  member       = each.value
}

# On-call looks at the queue by the view: that needs to receive from it, and snapshots.
# Creating or using a snapshot also needs the permission to consume from the subscription
# itself, so that this role alone gives no access to any message.
resource "google_pubsub_subscription_iam_member" "oncall_views" {
  for_each = { for member in var.oncall : member => member if var.view }

  project      = var.project_id
  subscription = google_pubsub_subscription.view[0].name
  role         = "roles/pubsub.subscriber"
  member       = each.value
}

resource "google_project_iam_custom_role" "snapshots" {
  count = var.view ? 1 : 0

  project     = var.project_id
  role_id     = "telemetryRelaySnapshots"
  title       = "telemetry-relay: snapshots"
  description = "Snapshots of subscriptions that the member may consume from, to look at the dead-letter queue without taking from it."
  permissions = [
    "pubsub.snapshots.create",
    "pubsub.snapshots.delete",
    "pubsub.snapshots.get",
    "pubsub.snapshots.seek",
  ]
}

resource "google_project_iam_member" "oncall_snapshots" {
  for_each = { for member in var.oncall : member => member if var.view }

  project = var.project_id
  role    = google_project_iam_custom_role.snapshots[0].id
  member  = each.value
}

# Developers take copies only.
resource "google_pubsub_subscription_iam_member" "developer_reads" {
  for_each = var.developers

  project      = var.project_id
  subscription = google_pubsub_subscription.developers[0].name
  role         = "roles/pubsub.subscriber"
  member       = each.value
}

# Auditors read settings, for `worker check`.
resource "google_pubsub_topic_iam_member" "auditor" {
  for_each = {
    for pair in setproduct([google_pubsub_topic.events.name, google_pubsub_topic.dead_letters.name, google_pubsub_topic.receipts.name], var.auditors) :
    "${pair[0]} ${pair[1]}" => { topic = pair[0], member = pair[1] }
  }

  project = var.project_id
  topic   = each.value.topic
  role    = "roles/pubsub.viewer"
  member  = each.value.member
}

resource "google_pubsub_subscription_iam_member" "auditor" {
  for_each = {
    for pair in setproduct(concat([
      google_pubsub_subscription.relay.name,
      google_pubsub_subscription.oncall.name,
      google_pubsub_subscription.receipts.name,
    ], google_pubsub_subscription.view[*].name), var.auditors) :
    "${pair[0]} ${pair[1]}" => { subscription = pair[0], member = pair[1] }
  }

  project      = var.project_id
  subscription = each.value.subscription
  role         = "roles/pubsub.viewer"
  member       = each.value.member
}

# Pub/Sub's own agent moves what is out of attempts.
data "google_project" "this" {
  project_id = var.project_id
}

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic_iam_member" "agent_dead_letters" {
  project = var.project_id
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "agent_removes" {
  project      = var.project_id
  subscription = google_pubsub_subscription.relay.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}
