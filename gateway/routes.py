"""Every path in one table. `openapi.py` describes each of them."""

from aiohttp import web

from gateway import (
    catalogue,
    delivery,
    documents,
    explanation,
    health,
    leaderboard,
    multipart,
    positions,
    search,
    statistics,
    uploads,
    viewers,
    views,
    webhooks,
)

ID = "{id:[A-Za-z0-9._:-]{1,64}}"
QUALITY = "{quality:[1-9][0-9]{1,3}p}"
SHEET = "{sheet:storyboard-[A-Za-z0-9_-]{1,100}[.]jpg}"
WEBHOOK = "{webhook:[A-Za-z0-9_-]{1,64}}"
FILE = "{segment:[A-Za-z0-9._-]{1,128}}"


def routes() -> list[web.RouteDef]:
    """The API; pages bring their own."""
    video, analytics, webhook = f"/api/videos/{ID}", "/api/analytics", f"/api/webhooks/{WEBHOOK}"
    return [
        web.get("/health", health.health),
        web.get("/live", health.live),
        web.get("/ready", health.ready),
        web.get("/metrics", health.metrics),
        web.get("/openapi.json", documents.openapi),
        web.get("/asyncapi.yaml", documents.asyncapi),
        web.get("/schemas/{name:[a-z0-9_.]{1,100}}.json", documents.json_schema),
        web.post("/api/videos/upload", uploads.upload_video),
        web.post("/api/multipart/initiate", multipart.initiate_upload),
        web.post("/api/multipart/part", multipart.put_part),
        web.get("/api/multipart/list-parts", multipart.list_parts),
        web.post("/api/multipart/complete", multipart.complete_upload),
        web.post("/api/multipart/abort", multipart.abort_upload),
        web.get("/api/videos", catalogue.list_videos),
        web.get("/api/videos/search", search.search),
        web.get("/api/videos/suggest", search.suggest),
        web.get(video, catalogue.get_video),
        web.delete(video, catalogue.delete_video),
        web.get(f"{video}/stream", delivery.stream_video),
        web.get(f"{video}/hls/master.m3u8", delivery.master_playlist),
        web.get(f"{video}/hls/{QUALITY}/playlist.m3u8", delivery.media_playlist),
        web.get(f"{video}/hls/{QUALITY}/{FILE}", delivery.segment),
        web.get(f"{video}/thumbnail", delivery.thumbnail),
        web.get(f"{video}/storyboard", delivery.storyboard),
        web.get(f"{video}/{SHEET}", delivery.storyboard_sheet),
        web.post(f"{video}/views", views.record_view),
        web.put(f"{video}/position", positions.update_position),
        web.get(f"{video}/position", positions.get_position),
        web.get("/api/history/continue", positions.continue_watching),
        web.get("/api/history/completed", positions.completed),
        web.get("/api/viewer", viewers.get_viewer),
        web.delete("/api/viewer", viewers.forget_viewer),
        web.get("/api/viewer/export", viewers.export_viewer),
        web.get(f"{analytics}/top", leaderboard.top),
        web.get(f"{analytics}/top/stream", leaderboard.follow_top),
        web.get(f"{analytics}/videos/{ID}/stats", statistics.stats),
        web.get(f"{analytics}/videos/{ID}/history", statistics.history),
        web.get(f"{analytics}/videos/{ID}/explain", explanation.explain),
        web.post("/api/webhooks", webhooks.create_webhook),
        web.get("/api/webhooks", webhooks.list_webhooks),
        web.get(webhook, webhooks.get_webhook),
        web.delete(webhook, webhooks.delete_webhook),
        web.post(f"{webhook}/pause", webhooks.pause_webhook),
        web.post(f"{webhook}/resume", webhooks.resume_webhook),
        web.post(f"{webhook}/replay", webhooks.replay_webhook),
        web.post(f"{webhook}/ping", webhooks.ping_webhook),
        web.get(f"{webhook}/deliveries", webhooks.webhook_deliveries),
    ]
