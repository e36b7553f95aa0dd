output "worker_environment" {
  description = "The variables that the worker needs to find all this, for its service.yaml."
  value = {
    PUBSUB_TOPIC        = google_pubsub_topic.events.name
    PUBSUB_SUBSCRIPTION = google_pubsub_subscription.relay.name
    DLQ_TOPIC           = google_pubsub_topic.dead_letters.name
    DLQ_SUBSCRIPTION    = google_pubsub_subscription.oncall.name
    RECEIPTS_TOPIC      = google_pubsub_topic.receipts.name
  }
}

output "oncall_environment" {
  description = "The variables with which on-call finds more than the defaults, beside those of the worker."
  value = {
    DLQ_VIEW_SUBSCRIPTION = one(google_pubsub_subscription.view[*].name)
    RECEIPTS_SUBSCRIPTION = google_pubsub_subscription.receipts.name
  }
}

output "developer_subscription" {
  description = "What developers set DLQ_SUBSCRIPTION to; null without developers."
  value       = one(google_pubsub_subscription.developers[*].name)
}
