variable "project_id" {
  description = "The Google Cloud project of the environment: what MSP gives the worker as GOOGLE_CLOUD_PROJECT."
  type        = string
}

variable "topic" {
  description = "The topic that services publish events to (PUBSUB_TOPIC)."
  type        = string
  default     = "telemetry-events"
}

variable "publishers" {
  description = "Who may publish events, as IAM members: the service accounts of services. The event's own service_id is self-asserted, so this list is the real boundary."
  type        = set(string)
  default     = []
}

variable "worker" {
  description = "The worker's service account, as an IAM member: serviceAccount:NAME@PROJECT.iam.gserviceaccount.com."
  type        = string
}

variable "oncall" {
  description = "The IAM members, usually one group, that read, fix and replay dead-lettered messages. They see private metadata."
  type        = set(string)
}

variable "view" {
  description = "Whether on-call gets a second subscription of the dead-letter topic, to look at the queue without taking from it. It needs a custom role in the project, for snapshots."
  type        = bool
  default     = true
}

variable "developers" {
  description = "The IAM members that may read copies of dead-lettered messages without taking them from on-call. They see private metadata. Empty: no copies are kept."
  type        = set(string)
  default     = []
}

variable "auditors" {
  description = "Who may run `worker check` in full: read settings, nothing else. The worker itself does not need it."
  type        = set(string)
  default     = []
}

variable "event_retention" {
  description = "How long an event waits for the worker: longer than the longest outage to be survived."
  type        = string
  default     = "604800s" # 7 days
}

variable "allowed_regions" {
  description = "Where Pub/Sub may keep messages at rest. Empty: wherever the organization's policy allows it. The worker's PUBSUB_ENDPOINT says through which region they go."
  type        = list(string)
  default     = []
}

variable "notification_channels" {
  description = "Cloud Monitoring channels that alerts go to, by their full names."
  type        = list(string)
}

variable "event_age_alert" {
  description = "Alert when the oldest event has waited so many seconds for the worker. A job wants a few of its intervals."
  type        = number
  default     = 3600
}

variable "letter_age_alert" {
  description = "Alert when the oldest dead-lettered message has waited for this many seconds."
  type        = number
  default     = 86400
}

variable "runbook_url" {
  description = "Where on-call reads what to do; each alert links to it."
  type        = string
  default     = "https://github.com/sourcegraph/telemetry-relay/blob/main/docs/oncall.md"
}

variable "labels" {
  description = "Labels of all topics and subscriptions."
  type        = map(string)
  default     = {}
}
