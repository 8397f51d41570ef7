"""Every projection by its name, as `streams.yaml` declares them."""

from projections.catalogue import catalogue
from projections.chronicle import chronicle
from projections.leaderboard import leaderboard
from projections.positions import positions
from projections.projection import Projection
from projections.resume import resume
from projections.search import search
from projections.statistics import statistics
from projections.views import views

PROJECTIONS: dict[str, Projection] = {
    projection.name: projection
    for projection in (catalogue, chronicle, views, statistics, positions, leaderboard, resume, search)
}
