// An exporter for @sourcegraph/telemetry that publishes to the relay's topic. A service
// never waits for it, nor fails because of it: what waits is bounded, and what is lost is
// counted and reported.

import { randomBytes } from "node:crypto";
import { PubSub, type Topic } from "@google-cloud/pubsub";
import type { TelemetryEventInput, TelemetryExporter } from "@sourcegraph/telemetry";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";

export interface Options {
  /** The topic's full name: projects/PROJECT/topics/TOPIC. */
  topic: string;
  /** Who records. services.yaml of the relay must list the service. */
  service: { id: string; environment?: string; version?: string };
  /** The content of event.schema.json. */
  schema: object;
  /** How many events may wait for Pub/Sub's confirmation. Newer ones are dropped. Default: 10,000. */
  maxWaiting?: number;
  /** How long an event is tried again while Pub/Sub is away or refuses, in ms. Default: 10 minutes. */
  retryForMs?: number;
}

/** What became of the events. */
export interface Stats {
  published: number;
  /** Not confirmed by Pub/Sub in time, or refused. */
  failed: number;
  /** Not taken: too many wait, or the exporter is closed. */
  dropped: number;
  /** Not taken: the relay would reject them. */
  invalid: number;
  waiting: number;
}

/** The error of exportEvents says what was lost, and why the last event was. */
export class LostEvents extends Error {}

export class PubSubTelemetryExporter implements TelemetryExporter {
  readonly stats: Stats = { published: 0, failed: 0, dropped: 0, invalid: 0, waiting: 0 };
  private readonly pubsub: PubSub;
  private readonly topic: Topic;
  private readonly attributes: Record<string, string>;
  private readonly validate: ValidateFunction;
  private readonly waiting = new Set<Promise<void>>();
  private readonly maxWaiting: number;
  private closed = false;

  constructor({ topic, service, schema, maxWaiting = 10_000, retryForMs = 600_000 }: Options) {
    const project = /^projects\/([^/]+)\/topics\/[^/]+$/.exec(topic)?.[1];
    if (!project) {
      throw new Error(`telemetry: expected projects/PROJECT/topics/TOPIC, got ${topic}`);
    }
    this.maxWaiting = maxWaiting;
    this.validate = new Ajv2020().compile(schema);
    this.attributes = { schema_version: "1", service_id: service.id };
    if (service.environment) this.attributes.service_environment = service.environment;
    if (service.version) this.attributes.service_version = service.version;
    this.pubsub = new PubSub({ projectId: project });
    this.topic = this.pubsub.topic(topic, {
      batching: { maxMilliseconds: 50, maxMessages: 500 },
      gaxOpts: {
        retry: {
          // The client's own choice, and NotFound (5), PermissionDenied (7) and
          // Unauthenticated (16): what was just created or granted takes a while.
          retryCodes: [1, 2, 4, 5, 7, 8, 10, 13, 14, 16],
          backoffSettings: {
            initialRetryDelayMillis: 100,
            retryDelayMultiplier: 2,
            maxRetryDelayMillis: 5_000,
            initialRpcTimeoutMillis: 10_000,
            rpcTimeoutMultiplier: 1,
            maxRpcTimeoutMillis: 10_000,
            totalTimeoutMillis: retryForMs,
          },
        },
      },
    });
  }

  /**
   * Publishes events, together with those of other calls. It resolves when Pub/Sub has
   * confirmed all of them, and rejects with LostEvents when some were lost.
   */
  async exportEvents(events: TelemetryEventInput[]): Promise<void> {
    let lost = 0;
    let last = "";
    const lose = (kind: "failed" | "dropped" | "invalid", why: string) => {
      this.stats[kind]++;
      lost++;
      last = why;
    };
    await Promise.all(
      events.map((event) => {
        if (this.closed) return lose("dropped", "the exporter is closed");
        if (this.waiting.size >= this.maxWaiting) return lose("dropped", "too many events wait");
        const data = render(event);
        if (!this.validate(JSON.parse(data))) {
          return lose("invalid", `${event.feature}/${event.action}: ${faults(this.validate)}`);
        }
        const sent = this.topic.publishMessage({ data: Buffer.from(data), attributes: this.attributes }).then(
          () => void this.stats.published++,
          (error: unknown) => lose("failed", error instanceof Error ? error.message : String(error)),
        );
        this.waiting.add(sent);
        this.stats.waiting = this.waiting.size;
        return sent.finally(() => {
          this.waiting.delete(sent);
          this.stats.waiting = this.waiting.size;
        });
      }),
    );
    if (lost > 0) {
      throw new LostEvents(`telemetry: ${lost} of ${events.length} events were lost; the last one: ${last}`);
    }
  }

  /**
   * Takes no more events, and publishes what waits, for at most timeoutMs. Events that
   * are not confirmed by then stay in stats.waiting. It never rejects.
   */
  async close(timeoutMs: number): Promise<Stats> {
    this.closed = true;
    // flush rejects with the errors of the events, which exportEvents reports already.
    void this.topic.flush().catch(() => {});
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise((resolve) => (timer = setTimeout(resolve, timeoutMs)));
    await Promise.race([Promise.allSettled(this.waiting), timeout]);
    clearTimeout(timer);
    if (this.waiting.size === 0) await this.pubsub.close().catch(() => {});
    return this.stats;
  }
}

function faults(validate: ValidateFunction): string {
  return (validate.errors ?? []).map((e) => `${e.instancePath || "the event"} ${e.message}`).join("; ");
}

/** The event as the relay reads it. */
function render(event: TelemetryEventInput): string {
  const { parameters: p, marketingTracking: m } = event;
  return JSON.stringify(
    {
      feature: event.feature,
      action: event.action,
      id: uuid7(),
      timestamp: new Date(event.timestamp ?? Date.now()).toISOString(),
      metadata: p.metadata ? Object.fromEntries(p.metadata.map(({ key, value }) => [key, value])) : undefined,
      metadataVersion: p.version || undefined,
      privateMetadata: p.privateMetadata ?? undefined,
      billingMetadata: p.billingMetadata ?? undefined,
      interaction: p.interactionID ? { interactionId: p.interactionID } : undefined,
      client: { name: event.source.client, version: event.source.clientVersion ?? undefined },
      marketingTracking: m
        ? {
            url: m.url,
            firstSourceUrl: m.firstSourceURL,
            cohortId: m.cohortID,
            referrer: m.referrer,
            lastSourceUrl: m.lastSourceURL,
            deviceSessionId: m.deviceSessionID,
            sessionReferrer: m.sessionReferrer,
            sessionFirstUrl: m.sessionFirstURL,
          }
        : undefined,
    },
    // The relay rejects half a surrogate pair.
    (_, value: unknown) => (typeof value === "string" ? value.toWellFormed() : value),
  );
}

/** A UUID that begins with the time, so that ids sort by it. */
function uuid7(): string {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6]! & 0x0f) | 0x70; // version
  bytes[8] = (bytes[8]! & 0x3f) | 0x80; // variant
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/**
 * Flushes when the process ends: on SIGTERM and SIGINT, for at most timeoutMs (Cloud Run
 * gives 10 s), and when nothing is left to do.
 */
export function flushOnExit(provider: { unsubscribe(): void }, exporter: PubSubTelemetryExporter, timeoutMs = 8_000): void {
  const flush = async () => {
    provider.unsubscribe();
    const { waiting } = await exporter.close(timeoutMs);
    if (waiting > 0) console.error(`telemetry: ${waiting} events were not confirmed by Pub/Sub`);
  };
  process.once("beforeExit", () => void flush());
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.once(signal, () => void flush().then(() => process.exit(0)));
  }
}
