# Who has read or changed what: Data Access logs of Pub/Sub, which Google writes
# and no reader of dead-lettered messages can turn off. There are none by default. They
# are a setting of the project and cover all subscriptions, those of dead-lettered messages
# and the worker's own. The worker and the publishers are left out: their traffic
# is the product, and a log entry for each request would cost more than it tells.
resource "google_project_iam_audit_config" "pubsub" {
  project = var.project_id
  service = "pubsub.googleapis.com"

  audit_log_config {
    log_type         = "DATA_READ"
    exempted_members = [var.worker]
  }

  audit_log_config {
    log_type         = "DATA_WRITE"
    exempted_members = concat([var.worker], [for p in var.publishers : p])
  }
}
